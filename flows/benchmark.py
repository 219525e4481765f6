"""The flow `benchmark`: a registered model on the workspace's benchmarks. `gapbridge benchmark` does it."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Failed

from flows import clone, pipeline


@flow(name="benchmark", persist_result=True, result_serializer="json", validate_parameters=True)
def benchmark(workspace: str = ".", model: str | None = None, own_workspace: bool = False) -> Any:
    """Score `model` (NAME@ALIAS, NAME/NUMBER; by default the champion of the one in params.yaml).

    With `own_workspace` the questions are those of the newest completed run, in a clone of `workspace`.
    """
    folder = Path(workspace).resolve()
    try:
        if own_workspace:
            return clone.run_in_clone(folder, lambda own: _benchmark(own, model), restored=True)
        return _benchmark(folder, model)
    except pipeline.PipelineError as error:
        return Failed(message=str(error))


def _benchmark(folder: Path, model: str | None) -> Any:
    try:
        said = pipeline.command(folder, "benchmark", *([model] if model else []), "--json")
    finally:
        pipeline.stop_all()
    if said.status != 0:
        return Failed(message=said.error)
    found = json.loads(said.output)
    shown = ("score", "blind", "majority", "n", "protocol")
    rows = [{"benchmark": name} | {key: one[key] for key in shown} for name, one in found["benchmarks"].items()]
    create_table_artifact(rows, key="benchmark", description=f"{found['model']} version {found['version']}")
    return {key: found[key] for key in ("model", "version", "average", "average_blind")}
