"""Models of the hub: their files, or why they cannot be had and what to do about it."""

import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from gapbridge.errors import ArtifactError

_SHOWN_CHARACTERS = 200
_REASONS = {
    "GatedRepoError": "its terms are not accepted: accept them on its page, then run `hf auth login`",
    "RepositoryNotFoundError": "no such model, or a private one: check OWNER/NAME, or run `hf auth login`",
    "RevisionNotFoundError": "no such revision: name one of its commits",
    "LocalEntryNotFoundError": "not on this machine, and the hub cannot be reached: where it can, run `hf download` and"
    " name the folder",
    "OfflineModeIsEnabled": "not on this machine, and HF_HUB_OFFLINE is set: unset it, or name a folder",
}
"""By the name of huggingface_hub's error, narrowest first; it is not imported, since it need not be there."""


def fetched(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    """The folder of a hub's `repository`, with `files` (patterns) of that revision. Raises ArtifactError without it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The client tells each of its tries, twice where transformers is loaded; what came of them is in the error.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    # Asked once beforehand: where nobody answers, the client asks for the files of a commit six times in 23 s.
    alone = not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT)
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(files), local_files_only=alone)
        )
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ArtifactError(f"{repository}: cannot be fetched ({why_absent(error)})") from error


def _answers(address: str, timeout_seconds: float) -> bool:
    """Whether a server is there, whatever it says."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the client may trust other certificates
    except OSError:
        return False
    return True


def why_absent(error: BaseException) -> str:
    """The reason behind an error of huggingface_hub, or of a library that called it, in one line with the remedy."""
    kinds = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    known = next((reason for name, reason in _REASONS.items() if name in kinds), None)
    return known or " ".join(str(error).split())[:_SHOWN_CHARACTERS] or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
