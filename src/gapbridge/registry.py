"""The MLflow model registry: which versions there are, and their files (gapbridge/model_package.py says which)."""

import errno
import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError, one_line
from gapbridge.mirror import open_store, store_errors

CHAMPION = "champion"
"""The alias of the version in use."""
EVIDENCE = "evidence"
"""The folder of a package with the figures and predictions that were made of the model."""
PARTS = (EVIDENCE, "dvc.lock", "params.yaml")
"""What is read of a package without the rest; a version has a tag of that name with its digest."""
DECISIONS_OF = "gapbridge.of"
"""The tag of a registered model that is a list of decisions about another."""
PACKAGE = "model"
"""The folder of a version's files among its run's artifacts."""
PACKAGE_DIGEST = "package.digest"
"""The tag of a version with the digest of all its files."""
# A registry that does not answer is asked again later: waiting minutes for it would only delay the end of a service.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says of a model, and of an alias, that is not there."""
_PRESENT = "RESOURCE_ALREADY_EXISTS"
_REFUSALS = (*_ABSENT, _PRESENT, "PERMISSION_DENIED", "UNAUTHENTICATED")


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    digest: str
    """Of all its files; empty where whoever registered it wrote none down."""
    run_id: str = field(default="", compare=False)
    tags: dict[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


class RefusedError(InputError):
    """The registry answered, and would not do it; `code` is MLflow's word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Registry:
    """The registered models of one MLflow store: `MLFLOW_TRACKING_URI`, or mlflow.db in the workspace.

    Everything raises InputError, in one line, while the store does not answer; a later call may work again.
    """

    def __init__(self, workspace: Path, create: bool = False) -> None:
        """Raises InputError where MLflow is not installed and, without `create`, where nothing names a store."""
        if importlib.util.find_spec("mlflow") is None:
            raise InputError("the model registry needs MLflow, which is not installed; install the extra ops")
        if not create:
            if not has_store(workspace):
                raise InputError(
                    f"{workspace}: no mlflow.db here; name a model in report.register_as and run `dvc repro`, or set"
                    " MLFLOW_TRACKING_URI"
                )
            for key, value in _PATIENCE.items():
                os.environ.setdefault(key, value)
        self.client: Any = _Client(workspace)
        """MLflow's own client, but for how it fails."""

    @property
    def experiment_id(self) -> str:
        """Of the experiment that all runs of gapbridge are in."""
        with self.client.connection() as (_, experiment_id):
            return experiment_id

    def names(self) -> list[str]:
        """The registered models, sorted; lists of decisions are none."""
        return sorted(one.name for one in self.models() if DECISIONS_OF not in one.tags)

    def only_name(self) -> str:
        """The one registered model. Raises InputError when that leaves a choice."""
        names = self.names()
        if len(names) != 1:
            if not names:
                raise InputError("the registry has no model yet; name one in report.register_as and run `dvc repro`")
            raise InputError(f"which model? the registry has {', '.join(names)}; name one")
        return names[0]

    def models(self) -> list[Any]:
        """Everything that is registered, as MLflow tells it."""
        return list(pages(self.client.search_registered_models))

    def resolve(self, reference: str) -> Version:
        """The version that `NAME@ALIAS`, `NAME/NUMBER` or `NAME` (its newest one) means.

        Raises InputError when there is none.
        """
        name, alias, number = _parsed(reference)
        if alias is not None:
            found = self.aliased(name, alias)
        else:
            found = next((one for one in self.versions(name) if number in (None, one.number)), None)
        if found is None:
            known = ", ".join(self.names()) or "none"
            raise InputError(
                f"{reference}: not in the registry, whose models are {known}; `gapbridge promote` sets the alias"
                f" {CHAMPION}"
            )
        return found

    def versions(self, name: str) -> list[Version]:
        """Every version of a model, newest first; none of a model that is not there."""
        try:
            found = list(pages(self.client.search_model_versions, f"name = '{name}'"))
        except RefusedError as error:
            if error.code not in _ABSENT:
                raise
            return []
        return sorted(map(_version, found), key=lambda one: -one.number)

    def aliased(self, name: str, alias: str = CHAMPION) -> Version | None:
        """The version that carries the alias; None when none does, or there is no such model."""
        try:
            return _version(self.client.get_model_version_by_alias(name, alias))
        except RefusedError as error:
            if error.code not in _ABSENT:
                raise
            return None

    def ensure_model(self, name: str, **described: Any) -> None:
        """Make the registered model `name` unless it is there."""
        try:
            self.client.create_registered_model(name, **described)
        except RefusedError as error:
            if error.code != _PRESENT:
                raise

    @contextmanager
    def run(self, kind: str, tags: Mapping[str, str]) -> Iterator[str]:
        """The id of a new MLflow run, FINISHED when the block ends and FAILED where something is raised in it."""
        client = self.client
        named = {"stage": kind, **tags}
        run_id: str = client.create_run(self.experiment_id, run_name=kind, tags=named).info.run_id
        try:
            yield run_id
        except BaseException:
            with suppress(InputError):  # what was raised tells more than a store that is gone
                client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)

    @contextmanager
    def package(self, version: Version) -> Iterator[Path]:
        """The files of a version in a folder that goes when the block ends.

        Raises ArtifactError when they are not those that were registered.
        """
        with tempfile.TemporaryDirectory() as folder:
            yield self._files(version, Path(folder))

    def fetch(self, version: Version, cache: Path) -> Path:
        """The folder of that version under `cache`, downloaded unless it lies there whole; raises as `package` does."""
        cache.mkdir(parents=True, exist_ok=True)
        folder = artifacts.inside(cache, f"{version.name}-{version.number}-{version.digest.removesuffix('.dir')}")
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder.is_dir() and artifacts.dvc_digest(folder) == version.digest):
                with artifacts.fresh_folder(folder) as fresh:
                    download = fresh / ".download"
                    download.mkdir()
                    for path in self._files(version, download).iterdir():
                        path.replace(fresh / path.name)
                    shutil.rmtree(download)
        return folder

    def part(self, version: Version, path: str, folder: Path) -> Path | None:
        """One file or folder of a version's files, below `folder`; None where it has none such.

        Raises ArtifactError where it is not what the tag of its name says was registered.
        """
        with self.client.connection() as (client, _):
            listed = client.list_artifacts(version.run_id, PACKAGE)
            if f"{PACKAGE}/{path}" not in {one.path for one in listed}:
                return None
            found = _download(client, version, f"{PACKAGE}/{path}", folder)
        if path in version.tags and part_digest(found) != version.tags[path]:
            raise ArtifactError(f"{version}: {path} is not what was registered; register the model again")
        return found

    def _files(self, version: Version, folder: Path) -> Path:
        """All of a version's files, below `folder`, checked by their digest."""
        if not version.digest:
            raise ArtifactError(f"{version}: has no tag {PACKAGE_DIGEST}; register it with gapbridge")
        with self.client.connection() as (client, _):
            files = _download(client, version, PACKAGE, folder)
        if artifacts.dvc_digest(files) != version.digest:
            raise ArtifactError(f"{version}: its files are not those that were registered; register the model again")
        return files


class _Client:
    """MLflow's client, connected when it is first asked, and again after it gave no answer."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._connected: tuple[Any, str] | None = None

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.connection() as (client, _):
                return getattr(client, method)(*arguments, **named)

        return call

    @contextmanager
    def connection(self) -> Iterator[tuple[Any, str]]:
        """Client and experiment; what fails in the block is an InputError in one line."""
        try:
            if self._connected is None:
                with open_store(self._workspace) as connected:
                    self._connected = connected
            yield self._connected
        except store_errors() as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # of this machine's disk, which the command line tells as that
            code = str(getattr(error, "error_code", ""))
            if self._connected is not None and code in _REFUSALS:
                raise RefusedError(f"the registry refuses that ({one_line(error)})", code) from error
            self._connected = None
            raise InputError(f"the registry does not answer ({one_line(error)}); look whether it runs") from error


def has_store(workspace: Path) -> bool:
    """Whether anything names a store: `MLFLOW_TRACKING_URI`, or mlflow.db in the workspace."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (workspace / "mlflow.db").exists()


def pages(search: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
    """Everything that one of MLflow's searches finds."""
    token = None
    while True:
        found = search(*arguments, page_token=token, **named)
        yield from found
        if not (token := found.token):
            return


def part_digest(path: Path) -> str:
    """Of a folder as DVC gives it, of a file its sha256."""
    return artifacts.dvc_digest(path) if path.is_dir() else artifacts.file_digest(path)


def _parsed(reference: str) -> tuple[str, str | None, int | None]:
    """Name, alias and number of a reference."""
    name, at, alias = reference.partition("@")
    if at:
        return name, alias, None
    name, slash, number = reference.partition("/")
    if slash and not (number.isascii() and number.isdigit()):
        raise InputError(f"{reference}: write NAME, NAME@ALIAS or NAME/NUMBER")
    return name, None, int(number) if slash else None


def _version(found: Any) -> Version:
    tags = dict(found.tags)
    return Version(found.name, int(found.version), tags.get(PACKAGE_DIGEST, ""), found.run_id, tags)


def _download(client: Any, version: Version, path: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    found = download_artifacts(
        run_id=version.run_id, artifact_path=path, dst_path=str(folder), tracking_uri=client.tracking_uri
    )
    return Path(found)
