"""The flow `cleanup`: workspaces that killed runs left, and what `gapbridge cleanup` finds. A dry run by default."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Failed
from pydantic import NonNegativeFloat

from flows import pipeline
from flows import workspace as workspaces

_SHOWN_ROWS = 200


@flow(name="cleanup", persist_result=True, result_serializer="json", validate_parameters=True)
def cleanup(
    workspace: str = ".", older_than_days: NonNegativeFloat = 14, apply: bool = False, dvc_cache: bool = False
) -> Any:
    """List, or with `apply` remove, what is old and what nothing names any more.

    What a registered version, this workspace, a workspace of a run under way or a run's record names stays.
    """
    checkout = Path(workspace).resolve()
    left = workspaces.abandoned(checkout)
    kept = [folder for folder in workspaces.with_locks(checkout) if folder not in left]
    arguments = ["--older-than", str(older_than_days), *(f"--workspace={folder}" for folder in kept)]
    arguments += [*(["--apply"] if apply else []), *(["--dvc-cache"] if dvc_cache else []), "--json"]
    try:
        said = pipeline.command(checkout, "cleanup", *arguments)
    finally:
        pipeline.stop_all()
    if said.status != 0:
        return Failed(message=said.error)
    if apply:
        left = [folder for folder in left if workspaces.remove_abandoned(folder)]
    rows = [{"kind": "workspace", "name": str(folder), "bytes": None, "days": None} for folder in left]
    rows += json.loads(said.output)["leftovers"]
    done = "removed" if apply else "would be removed"
    create_table_artifact(rows[:_SHOWN_ROWS], key="cleanup", description=f"{len(rows)} things {done}")
    return {"things": len(rows), "bytes": sum(row["bytes"] or 0 for row in rows), "removed": apply}
