"""The MLflow model registry: a version is a copy of the model directory with what made it, as plain files."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.mirror import open_store
from gapbridge.tracking import git_tags

CHAMPION = "champion"
"""The alias of the version in use."""
EVIDENCE = "evidence"
"""The folder of a package with the figures and predictions that were made of the model."""
PARTS = (EVIDENCE, "dvc.lock", "params.yaml")
"""What is read of a package without the rest; a version has a tag of that name with its digest."""
PACKAGE_DIGEST = "package.digest"
"""The tag with the digest of all files of a version."""
DECISIONS_OF = "gapbridge.of"
"""The tag of a registered model that is a list of decisions about another."""
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    run_id: str
    source: str
    """Where its files lie, as MLflow names it."""
    tags: dict[str, str]


class Registry:
    """The registered models of one MLflow store; every failure of it is one line."""

    def __init__(self, client: Any, experiment_id: str) -> None:
        self.client, self.experiment_id = client, experiment_id

    def names(self) -> list[str]:
        """The registered models, sorted; lists of decisions are none."""
        return sorted(one.name for one in self.client.search_registered_models() if DECISIONS_OF not in one.tags)

    def resolve(self, reference: str) -> Version:
        """The version that `NAME@ALIAS`, `NAME/NUMBER` or `NAME` (its newest one) means.

        Raises InputError when there is none.
        """
        name, alias, number = _parsed(reference)
        if name not in (known := self.names()):
            raise InputError(f"{name}: no such registered model (there are {', '.join(known) or 'none'})")
        if alias:
            found = self.aliased(name, alias)
        else:
            versions = self.versions(name)
            found = next((one for one in versions if number in (None, one.number)), None)
        if found is None:
            raise InputError(f"{reference}: no such version of {name}; `gapbridge promote` sets the alias {CHAMPION}")
        return found

    def versions(self, name: str) -> list[Version]:
        """Every version of a model, newest first."""
        found = self.client.search_model_versions(f"name = '{name}'")
        return sorted(map(_version, found), key=lambda one: -one.number)

    def aliased(self, name: str, alias: str = CHAMPION) -> Version | None:
        """The version that carries the alias; None when none does."""
        number = self.client.get_registered_model(name).aliases.get(alias)
        return None if number is None else _version(self.client.get_model_version(name, number))

    @contextmanager
    def package(self, version: Version) -> Iterator[Path]:
        """The files of a version in a folder that goes when the block ends.

        Raises ArtifactError when they cannot be had or are not those that were registered.
        """
        with tempfile.TemporaryDirectory() as folder:
            yield self.download(version, Path(folder))

    def download(self, version: Version, folder: Path) -> Path:
        """The files of a version, below `folder`, checked; raises as `package` does."""
        files = self.part(version, "", folder)
        expected = version.tags.get(PACKAGE_DIGEST)
        if expected is not None and artifacts.dvc_digest(files) != expected:
            raise ArtifactError(
                f"{version.name} version {version.number}: its files are not those that were registered; register the"
                " model again"
            )
        return files

    def part(self, version: Version, path: str, folder: Path) -> Path:
        """One file or folder of a version's files, below `folder`; checked where a tag of its name has its digest.

        Raises ArtifactError when it cannot be had or is not what was registered.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        wanted, label = f"model/{path}".rstrip("/"), f"{version.name} version {version.number}"
        try:
            found = Path(
                download_artifacts(
                    run_id=version.run_id,
                    artifact_path=wanted,
                    dst_path=str(folder),
                    tracking_uri=self.client.tracking_uri,
                )
            )
        except (MlflowException, OSError, ValueError) as error:
            raise ArtifactError(f"{label}: {wanted} cannot be had ({_one_line(error)}); look at the store") from error
        if path in version.tags and _digest(found) != version.tags[path]:
            raise ArtifactError(f"{label}: {path} is not what was registered; register the model again")
        return found


@contextmanager
def open_registry(workspace: Path) -> Iterator[Registry]:
    """The registry of the workspace's MLflow store.

    Raises InputError where MLflow is not installed, ArtifactError in one line whenever the store fails.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("the model registry needs MLflow, which is not installed; install the extra ops")
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with open_store(workspace) as (client, experiment_id):
            yield Registry(client, experiment_id)
    except (MlflowException, SQLAlchemyError) as error:
        raise ArtifactError(f"MLflow: {_one_line(error)}; look whether its server or database runs") from error


def register(workspace: Path, name: str, model: Path, model_card: Path, probe: Path | None = None) -> int:
    """Copy `model` into the registry as the next version of `name`, and return that version's number.

    The copy holds the model directory with `model_card` as its README.md, dvc.lock, params.yaml, `probe` as its
    probe.json and, in `evidence/`, the figures and predictions there are; it needs nothing of the workspace afterwards.
    Raises InputError where MLflow is not installed, ArtifactError where a file is missing.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("report.register_as: needs MLflow, which is not installed; set it to null or install mlflow")
    files = {"README.md": model_card, "dvc.lock": workspace / "dvc.lock", "params.yaml": workspace / "params.yaml"}
    if probe is not None:
        files["probe.json"] = probe
    for path in (model, *files.values()):
        if not path.exists():
            raise ArtifactError(f"{path}: missing; run `dvc repro` before registering the model")
    tags = {
        "model.digest": artifacts.dvc_digest(model),
        **_environment_tags(workspace),
        **git_tags(workspace),
    }
    with open_registry(workspace) as registry, tempfile.TemporaryDirectory() as folder:
        client = registry.client
        copy = Path(folder) / "model"
        shutil.copytree(model, copy)
        for file_name, path in (files | _evidence(workspace)).items():
            (copy / file_name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / file_name)
        parts = {name: _digest(copy / name) for name in PARTS if (copy / name).exists()}
        tags |= parts | {PACKAGE_DIGEST: artifacts.dvc_digest(copy)}
        run_tags = {"stage": "register"} | tags
        run_id = client.create_run(registry.experiment_id, run_name="register", tags=run_tags).info.run_id
        client.log_artifacts(run_id, str(copy), "model")
        client.set_terminated(run_id)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        version = client.create_model_version(name, source, run_id, tags=tags)
    return int(version.version)


def _evidence(workspace: Path) -> dict[str, Path]:
    """What was measured of the model, by its path in the package."""
    metrics, predictions = workspace / "metrics", workspace / "artifacts" / "evaluate"
    found = {f"{EVIDENCE}/metrics/{path.relative_to(metrics)}": path for path in sorted(metrics.rglob("*.json"))}
    return found | {f"{EVIDENCE}/{path.name}": path for path in sorted(predictions.glob("*.json*"))}


def _environment_tags(workspace: Path) -> dict[str, str]:
    """The digest of the lock that the environment was installed from."""
    lock = workspace / "requirements.lock"
    return {"environment.lock": artifacts.file_digest(lock)} if lock.is_file() else {}


def _digest(path: Path) -> str:
    """Of a folder as DVC gives it, of a file its sha256."""
    return artifacts.dvc_digest(path) if path.is_dir() else artifacts.file_digest(path)


def _parsed(reference: str) -> tuple[str, str | None, int | None]:
    """Name, alias and number of a reference."""
    name, at, alias = reference.partition("@")
    if at:
        return name, alias, None
    name, slash, number = reference.partition("/")
    if slash and not number.isdigit():
        raise InputError(f"{reference}: write NAME, NAME@ALIAS or NAME/NUMBER")
    return name, None, int(number) if slash else None


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), found.run_id, found.source, dict(found.tags))


def _one_line(error: BaseException) -> str:
    """The error's first line; an address in it loses its password."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    shown = " ".join(_masked(word) for word in lines[0].split())
    return shown[:_SHOWN_CHARACTERS]


def _masked(word: str) -> str:
    if "://" not in word or "@" not in word:
        return word
    parts = urlsplit(word)
    return word.replace(parts.netloc, "…@" + parts.netloc.rpartition("@")[2])
