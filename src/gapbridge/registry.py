"""The MLflow model registry: a version is a copy of the model directory with what made it, as plain files."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.mirror import open_store
from gapbridge.tracking import git_tags

ADDED_FILES = ("README.md", "dvc.lock", "params.yaml", "probe.json")
"""What a version holds besides the model directory; the tag `model.digest` does not count them."""


def register(workspace: Path, name: str, model: Path, model_card: Path, probe: Path | None = None) -> int:
    """Copy `model` into the registry as the next version of `name`, and return that version's number.

    The copy holds the model directory with `model_card` as its README.md, dvc.lock, params.yaml, and the file `probe`
    as its probe.json; it needs nothing of the workspace afterwards. Raises InputError where MLflow is not installed,
    ArtifactError where a file is missing.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise InputError("report.register_as: needs MLflow, which is not installed; set it to null or install mlflow")
    files = {"README.md": model_card, "dvc.lock": workspace / "dvc.lock", "params.yaml": workspace / "params.yaml"}
    if probe is not None:
        files["probe.json"] = probe
    for path in (model, *files.values()):
        if not path.exists():
            raise ArtifactError(f"{path}: missing; run `dvc repro` before registering the model")
    # The lock's digest leads from a version back to the data and the code that made it.
    tags = {
        "model.digest": artifacts.dvc_digest(model),
        "dvc.lock": artifacts.file_digest(files["dvc.lock"]),
        **git_tags(workspace),
    }
    with open_store(workspace) as (client, experiment_id):
        run_id = client.create_run(experiment_id, run_name="register", tags={"stage": "register"} | tags).info.run_id
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "model"
            shutil.copytree(model, copy)
            for file_name, path in files.items():
                shutil.copyfile(path, copy / file_name)
            client.log_artifacts(run_id, str(copy), "model")
        client.set_terminated(run_id)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        version = client.create_model_version(name, source, run_id, tags=tags)
    return int(version.version)
