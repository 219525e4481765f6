"""Why a model of the hub cannot be had, and what to do about it."""

from collections.abc import Iterator

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


def why_absent(error: BaseException) -> str:
    """The reason behind an error of huggingface_hub, or of a library that called it, in one line with the remedy."""
    kinds = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    known = next((reason for name, reason in _REASONS.items() if name in kinds), None)
    return known or " ".join(str(error).split())[:_SHOWN_CHARACTERS] or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
