"""What the MLflow registry holds, for those who use it: which version an alias names, and that version's files."""

import fcntl
import importlib.util
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.mirror import open_store
from gapbridge.registry import DECISIONS_OF, PACKAGE_DIGEST

DEFAULT_ALIAS = "champion"
# A registry that does not answer is asked again later: waiting minutes for it would only delay the end of a service.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model; `digest` is that of all its files."""

    name: str
    number: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


class Registry:
    """Reads one registry: `MLFLOW_TRACKING_URI`, or mlflow.db in the workspace.

    Every method raises InputError while the registry does not answer; a later call may work again.
    """

    def __init__(self, workspace: Path) -> None:
        """Raises InputError where MLflow is not installed, or nothing names a registry."""
        if importlib.util.find_spec("mlflow") is None:
            raise InputError("the registry needs MLflow, which is not installed; install it or pass --model DIR")
        if not os.environ.get("MLFLOW_TRACKING_URI") and not (workspace / "mlflow.db").exists():
            raise InputError(f"{workspace}: no mlflow.db here; set MLFLOW_TRACKING_URI, or pass --model DIR")
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        self._workspace = workspace
        self._client: Any = None

    def names(self) -> list[str]:
        """The registered models."""
        return [model.name for model in self._ask("search_registered_models") if DECISIONS_OF not in model.tags]

    def version(self, name: str, alias: str) -> RegisteredVersion:
        """The version that `name@alias` means now. Raises InputError also where there is none."""
        found = self._ask("get_model_version_by_alias", name, alias)
        return RegisteredVersion(name, str(found.version), found.tags.get(PACKAGE_DIGEST, ""))

    def fetch(self, version: RegisteredVersion, cache: Path) -> Path:
        """The folder of that version under `cache`, downloaded if need be, its files checked by their digest.

        Raises ArtifactError where they are not those that were registered.
        """
        if not version.digest:
            raise ArtifactError(f"{version}: has no tag {PACKAGE_DIGEST}; register it with gapbridge")
        cache.mkdir(parents=True, exist_ok=True)
        folder = artifacts.inside(cache, f"{version.name}-{version.number}-{version.digest.removesuffix('.dir')}")
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir() and _is_whole(folder, version):
                return folder
            with artifacts.fresh_folder(folder) as fresh:
                self._download(version, fresh)
                if not _is_whole(fresh, version):
                    raise ArtifactError(f"{version}: its files are not those registered; register the model again")
        return folder

    def _download(self, version: RegisteredVersion, folder: Path) -> None:
        from mlflow.artifacts import download_artifacts

        source = self._ask("get_model_version_download_uri", version.name, version.number)
        try:
            found = download_artifacts(
                artifact_uri=source, dst_path=str(folder / ".download"), tracking_uri=self._client.tracking_uri
            )
        except _outside_errors() as error:
            raise InputError(f"{version}: cannot be downloaded ({_one_line(error)}); look at its store") from error
        for path in Path(found).iterdir():
            path.replace(folder / path.name)
        shutil.rmtree(folder / ".download", ignore_errors=True)

    def _ask(self, method: str, *arguments: str) -> Any:
        try:
            if self._client is None:
                self._client = self._connect()
            return getattr(self._client, method)(*arguments)
        except _outside_errors() as error:
            self._refuse(error, arguments)

    def _connect(self) -> Any:
        with ExitStack() as stack:
            return stack.enter_context(open_store(self._workspace))[0]

    def _refuse(self, error: Exception, arguments: tuple[str, ...]) -> NoReturn:
        is_asked = self._client is not None and arguments
        if is_asked and getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(
                f"{'@'.join(arguments)}: not in the registry ({_one_line(error)}); name another"
            ) from error
        self._client = None
        raise InputError(f"the registry does not answer ({_one_line(error)}); look whether it runs") from error


def _outside_errors() -> tuple[type[Exception], ...]:
    """What comes of a server, a database or a bucket that cannot be reached, or is none."""
    from mlflow.exceptions import MlflowException

    errors: list[type[Exception]] = [MlflowException, OSError]
    if importlib.util.find_spec("sqlalchemy"):
        from sqlalchemy.exc import SQLAlchemyError

        errors.append(SQLAlchemyError)
    if importlib.util.find_spec("botocore"):
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    return tuple(errors)


def _is_whole(folder: Path, version: RegisteredVersion) -> bool:
    return artifacts.dvc_digest(folder) == version.digest


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
