"""The flow `benchmark`: a registered model on the workspace's benchmarks. `gapbridge benchmark` does it."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Failed

from flows import pipeline


@flow(name="benchmark", persist_result=True, result_serializer="json", validate_parameters=True)
def benchmark(workspace: str = ".", model: str | None = None) -> Any:
    """Score `model` (NAME@ALIAS, NAME/NUMBER; by default the champion of the one in params.yaml)."""
    folder = Path(workspace).resolve()
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
