"""A stage called without the runner: no tracking, no declaration, only its folders."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.params import load_params
from gapbridge.stages.runner import StageRun


class Silent:
    """A tracker that keeps nothing."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        pass

    def finish(self, outs: Mapping[str, Path], metrics: Mapping[str, Any]) -> None:
        pass


def run_directly(workspace: Path, name: str, item: str | None = None) -> dict[str, Any]:
    """Run a stage on the workspace's params and artifacts; its out and metrics end where the runner puts them."""
    place = Path(name, item) if item else Path(name)
    params = load_params(workspace / "params.yaml")
    module = importlib.import_module(f"gapbridge.stages.{name}")
    with artifacts.fresh_folder(workspace / "artifacts" / place) as out:
        metrics = module.run(StageRun(name, item, params, workspace, out, workspace / "scratch", Silent()))
    artifacts.write_json(workspace / "metrics" / place.with_suffix(".json"), metrics)
    return metrics
