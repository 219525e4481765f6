"""What is registered: a copy of the model directory with what it was made from and what was measured of it."""

import shutil
import tempfile
from pathlib import Path

from gapbridge import artifacts
from gapbridge.errors import ArtifactError
from gapbridge.registry import EVIDENCE, PACKAGE, PACKAGE_DIGEST, PARTS, Registry, part_digest
from gapbridge.tracking import git_tags


def register(workspace: Path, name: str, model: Path, model_card: Path, probe: Path | None = None) -> int:
    """Copy `model` into the registry as the next version of `name`, and return that version's number.

    The copy holds the model directory with `model_card` as its README.md, dvc.lock, params.yaml, `probe` as its
    probe.json and, in `evidence/`, the figures and predictions there are; it needs nothing of the workspace afterwards.
    Raises InputError where MLflow is not installed or does not answer, ArtifactError where a file is missing.
    """
    registry = Registry(workspace, create=True)
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
    client = registry.client
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PACKAGE
        shutil.copytree(model, copy)
        for file_name, path in (files | _evidence(workspace)).items():
            (copy / file_name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / file_name)
        parts = {name: part_digest(copy / name) for name in PARTS if (copy / name).exists()}
        tags |= parts | {PACKAGE_DIGEST: artifacts.dvc_digest(copy)}
        registry.ensure_model(name)
        with registry.run("register", tags) as run_id:
            client.log_artifacts(run_id, str(copy), PACKAGE)
            source = f"{client.get_run(run_id).info.artifact_uri}/{PACKAGE}"
            return int(client.create_model_version(name, source, run_id, tags=tags).version)


def _evidence(workspace: Path) -> dict[str, Path]:
    """What was measured of the model, by its path in the package."""
    metrics, predictions = workspace / "metrics", workspace / "artifacts" / "evaluate"
    found = {f"{EVIDENCE}/metrics/{path.relative_to(metrics)}": path for path in sorted(metrics.rglob("*.json"))}
    return found | {f"{EVIDENCE}/{path.name}": path for path in sorted(predictions.glob("*.json*"))}


def _environment_tags(workspace: Path) -> dict[str, str]:
    """The digest of the lock that the environment was installed from."""
    lock = workspace / "requirements.lock"
    return {"environment.lock": artifacts.file_digest(lock)} if lock.is_file() else {}
