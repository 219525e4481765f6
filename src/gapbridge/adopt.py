"""A run made elsewhere comes home: `gapbridge adopt DIR` for a workspace that had neither prefect, dvc nor mlflow.

Everything is checked before anything is copied: outs by digest, params and code against those here, inputs against
what comes along or lies here already. Then DVC takes the outs and MLflow the runs.
"""

import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError, one_line
from gapbridge.mirror import mirror_run, store_errors
from gapbridge.params import load_params
from gapbridge.stages import EMBED_SETS, STAGES
from gapbridge.stages.runner import Declaration, code_digest, declaration, recorded_params
from gapbridge.tracking import CODE_TAG, FORMAT_VERSION, flatten

LABELS = tuple(
    label for name in STAGES for label in ([f"embed@{i}" for i in EMBED_SETS] if name == "embed" else [name])
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """The last good run of one stage in the folder that is to be adopted."""

    label: str
    folder: Path
    record: dict[str, Any]
    status: dict[str, Any]
    declared: Declaration

    @property
    def outputs(self) -> dict[str, str]:
        """Digest by path."""
        return self.status["outputs"]

    @property
    def inputs(self) -> dict[str, str]:
        """Digest by path."""
        tags = self.record["tags"].items()
        return {key.removeprefix("input."): digest for key, digest in tags if key.startswith("input.")}

    @property
    def metrics_path(self) -> str:
        """Where the stage's figures lie, in any workspace."""
        return f"metrics/{self.label.replace('@', '/')}.json"


def adopt(workspace: Path, elsewhere: Path) -> list[str]:
    """Take over the stages that ran in the workspace `elsewhere`; returns their labels in the order of dvc.yaml.

    Raises InputError for a folder that is no workspace, or one of other params or code; ArtifactError for outs that
    are not those its runs wrote. Nothing is changed then.
    """
    elsewhere = elsewhere.resolve()
    if elsewhere == workspace.resolve():
        raise InputError(f"{elsewhere}: is this workspace; name the copy of the other one")
    arrivals = [found for label in LABELS if (found := _arrival(workspace, elsewhere, label))]
    if not arrivals:
        raise InputError(f"{elsewhere}: holds no finished run of a stage (runs/<stage>/*/status.json)")
    _demand_same_recipe(workspace, arrivals)
    _demand_whole(workspace, elsewhere, arrivals)
    for arrival in arrivals:
        _copy(workspace, elsewhere, arrival)
    _commit(workspace, [arrival.label for arrival in arrivals])
    for arrival in arrivals:
        _mirror(workspace, arrival)
    return [arrival.label for arrival in arrivals]


def _arrival(workspace: Path, elsewhere: Path, label: str) -> Arrival | None:
    """The newest run of `label` that ended well; None when there is none."""
    name, _, item = label.partition("@")
    for path in sorted((elsewhere / "runs" / label).glob("*/status.json"), reverse=True):
        status = artifacts.read_json(path)
        if status["status"] != "FINISHED":
            continue
        record = artifacts.read_json(path.parent / "run.json")
        if record["format_version"] != FORMAT_VERSION:
            raise InputError(f"{path.parent}: a run of another version of gapbridge; use the same one on both machines")
        return Arrival(label, path.parent, record, status, declaration(workspace, name, item or None))
    return None


def _demand_same_recipe(workspace: Path, arrivals: list[Arrival]) -> None:
    params = load_params(workspace / "params.yaml")
    for arrival in arrivals:
        here, there = flatten(recorded_params(params, arrival.declared)), arrival.record["params"]
        if differing := sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key)):
            key = differing[0]
            raise InputError(
                f"{arrival.label}: ran with {key} {there.get(key)}, params.yaml here says {here.get(key)}; take over"
                " its params.yaml first"
            )
        tags = arrival.record["tags"]
        if tags.get(CODE_TAG) != code_digest(arrival.declared.code_digests(workspace)):
            commit = tags.get("git.commit", "unknown")[:12]
            raise InputError(f"{arrival.label}: ran with other code (commit {commit}); check that commit out here")


def _demand_whole(workspace: Path, elsewhere: Path, arrivals: list[Arrival]) -> None:
    """Outs and figures are those that the runs wrote, and each stage read what comes along or lies here."""
    coming = {path: digest for arrival in arrivals for path, digest in arrival.outputs.items()}
    for path, digest in coming.items():
        found = artifacts.inside(elsewhere, path)
        if not found.exists() or artifacts.dvc_digest(found) != digest:
            raise ArtifactError(f"{found}: is not what its run wrote; copy it again")
    for arrival in arrivals:
        figures = elsewhere / arrival.metrics_path
        if not figures.is_file():
            raise ArtifactError(f"{figures}: missing; copy it as well")
        if artifacts.read_json(figures) != arrival.status["metrics"]:
            raise ArtifactError(f"{figures}: is not what its run wrote; copy it again")
        coming[arrival.metrics_path] = artifacts.dvc_digest(figures)
    for arrival in arrivals:
        for path, digest in arrival.inputs.items():
            here = workspace / path
            present = coming.get(path) or (artifacts.dvc_digest(here) if here.exists() else None)
            if present != digest:
                raise ArtifactError(
                    f"{arrival.label}: read another {path} than comes along or lies here; bring that too"
                )


def _copy(workspace: Path, elsewhere: Path, arrival: Arrival) -> None:
    for path in arrival.outputs:
        source, target = elsewhere / path, artifacts.inside(workspace, path)
        if source.is_dir():
            with artifacts.fresh_folder(target) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            artifacts.write_bytes(target, source.read_bytes())
    artifacts.write_bytes(workspace / arrival.metrics_path, (elsewhere / arrival.metrics_path).read_bytes())
    logger.info("%s: %d outs taken over", arrival.label, len(arrival.outputs))


def _commit(workspace: Path, labels: list[str]) -> None:
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet", *labels]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[:1] or ["no reason given"]
        raise ArtifactError(f"dvc commit: {reason[0]}; mend that, then adopt again")


def _mirror(workspace: Path, arrival: Arrival) -> None:
    """Send the run to MLflow as if it had been made here; once."""
    folder = workspace / "runs" / arrival.label / arrival.folder.name
    if folder.exists():
        return
    with artifacts.fresh_folder(folder) as copy:
        shutil.copytree(arrival.folder, copy, dirs_exist_ok=True)
        locations = {path: str(workspace / path) for path in arrival.outputs}
        artifacts.write_json(copy / "run.json", arrival.record | {"workspace": str(workspace)})
        artifacts.write_json(copy / "status.json", arrival.status | {"locations": locations})
        (copy / "mirror.log").unlink(missing_ok=True)
    try:
        mirror_run(folder, None)
    except store_errors() as error:
        again = f"python -m gapbridge.mirror {folder}"
        logger.warning("warning: MLflow did not take %s (%s); send it with `%s`", arrival.label, one_line(error), again)
