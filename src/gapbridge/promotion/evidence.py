"""What a registered version brings along: figures, predictions, and what it was made from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gapbridge import artifacts
from gapbridge.errors import ArtifactError
from gapbridge.registry import Version

_PREDICTIONS = "predictions.jsonl"
_NEEDED_STAGES = ("ingest", "realign", "instruct", "evaluate")
_REGISTERING_STAGE = "report"
"""Its own entry in dvc.lock is written after it has registered the model, and until then that of an earlier run."""
_NEEDED_METRICS = ("ingest", "realign", "evaluate")


@dataclass(frozen=True)
class Evidence:
    """The figures (by stage) and prediction lines of one version; what is missing is empty."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """What lies in the evidence folder of a package. Raises ArtifactError for files that do not parse."""
        metrics = {path.stem: artifacts.read_json(path) for path in sorted((folder / "metrics").glob("*.json"))}
        return cls(metrics, _lines(folder / _PREDICTIONS))


def lineage_problem(package: Path, version: Version, require_clean: bool) -> str | None:
    """What is missing in a package to get back from it to code and data; None when nothing is."""
    if not (package / "params.yaml").is_file():
        return "params.yaml is missing"
    stages = locked_stages(package / "dvc.lock")
    if missing := [name for name in _NEEDED_STAGES if name not in stages]:
        return f"dvc.lock knows no stage {', '.join(missing)}"
    if problem := _chain_problem(stages, version.tags.get("model.digest")):
        return problem
    if "git.commit" not in version.tags:
        return "the commit was not recorded"
    if require_clean and version.tags.get("git.dirty") != "false":
        return "the code differed from its commit (promote.require_clean)"
    return None


def _chain_problem(stages: dict[str, Any], model_digest: str | None) -> str | None:
    """Where dvc.lock does not lead from this very model back to its sources; None when it does.

    Stages that ran without DVC leave the lock of other outs than those that were registered.
    """
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    if model_digest not in made.values():
        return "dvc.lock is of another model"
    for name, stage in stages.items():
        read = stage.get("deps", []) if name != _REGISTERING_STAGE else []
        if other := [dep["path"] for dep in read if made.get(dep["path"], dep.get("md5")) != dep.get("md5")]:
            return f"dvc.lock: {name} read another {other[0]} than is there"
    return None


def data_problem(evidence: Evidence) -> str | None:
    """What is missing of the figures of data, alignment and answers; None when nothing is."""
    if missing := [name for name in _NEEDED_METRICS if name not in evidence.metrics]:
        return f"no figures of {', '.join(missing)}"
    if not evidence.predictions:
        return "no predictions"
    empty = [name for name, one in evidence.metrics["ingest"].get("sets", {}).items() if "rows" not in one]
    return f"no counts of {', '.join(empty)}" if empty else None


def locked_stages(lock: Path) -> dict[str, Any]:
    """The stages of a dvc.lock by name; none where there is no such file. Raises ArtifactError for a damaged one."""
    if not lock.is_file():
        return {}
    try:
        return dict(yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{lock.name}: cannot be read; register the model again") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path.name}: cannot be read ({error}); register the model again") from error
