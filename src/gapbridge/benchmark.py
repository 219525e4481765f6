"""A registered model on this workspace's benchmarks: `gapbridge benchmark NAME@ALIAS`.

The model is the packaged one, the questions and vectors are those that lie here; figures and predictions go to
runs/benchmark/ and, as a run of their own, to MLflow.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.drawing.html import percent
from gapbridge.params import Params
from gapbridge.registry import Registry, Version
from gapbridge.stages.runner import StageRun
from gapbridge.tracking import flatten

RUNS = Path("runs", "benchmark")
_FIGURES = "figures.json"


@dataclass(frozen=True)
class Scored:
    """The figures of one version, as metrics/evaluate.json has them, and the MLflow run that keeps them."""

    model: str
    version: int
    run_id: str
    folder: Path
    figures: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        told = {"model": self.model, "version": self.version, "run_id": self.run_id, "folder": str(self.folder)}
        return told | dict(self.figures)

    def text(self) -> str:
        """The scores beside their floors."""
        head = f"{self.model} version {self.version}: {percent(self.figures['average'])}, blind "
        rows = [
            f"{name:<16}  {percent(one['score']):>7}  {percent(one['blind']):>7}  {one['n']:>6}  {one['protocol']}"
            for name, one in sorted(self.figures["benchmarks"].items())
        ]
        places = [f"in {self.folder}, MLflow run {self.run_id}"]
        return "\n".join([head + percent(self.figures["average_blind"]), *rows, *places])


def benchmark(workspace: Path, reference: str, params: Params) -> Scored:
    """Score the version that `reference` means on the benchmarks that were ingested and embedded in the workspace.

    Raises InputError for an unknown version and a store that does not answer; ArtifactError when it reads other vectors
    than lie here, or its files are damaged.
    """
    # Here, since it brings torch, and a wrong name should not wait for that.
    from gapbridge.stages import evaluate

    registry = Registry(workspace)
    version = registry.resolve(reference)
    folder = workspace / RUNS / f"{version.name}-{version.number}"
    with (
        registry.package(version) as package,
        tempfile.TemporaryDirectory() as scratch,
        artifacts.fresh_folder(folder) as out,
    ):
        stage = StageRun("evaluate", None, params, workspace, out, Path(scratch), _Quiet())
        figures = evaluate.run_on(stage, package, str(version))
        artifacts.write_json(out / _FIGURES, figures)
    run_id = _log(registry, version, folder, figures)
    return Scored(version.name, version.number, run_id, Path(os.path.relpath(folder, workspace)), figures)


class _Quiet:
    """Nothing is followed step by step here."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Says nothing."""

    def finish(self, outs: Mapping[str, Path], metrics: Mapping[str, Any]) -> None:
        """Ends nothing."""


def _log(registry: Registry, version: Version, folder: Path, figures: Mapping[str, Any]) -> str:
    client = registry.client
    with registry.run("benchmark", {"model": version.name, "model.version": str(version.number)}) as run_id:
        for name, value in flatten(figures).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                client.log_metric(run_id, f"final.{name}", float(value))
        for path in sorted(folder.iterdir()):
            client.log_artifact(run_id, str(path), "benchmark")
        return run_id
