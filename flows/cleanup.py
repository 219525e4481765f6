"""The flow `cleanup`: what killed runs left, old records, and what `gapbridge cleanup` finds. A dry run by default."""

import json
import shutil
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

    What a registered version, this workspace, a run under way, a younger record or that of the newest completed run
    names stays.
    """
    checkout = Path(workspace).resolve()
    left = workspaces.abandoned(checkout)
    old = workspaces.old_records(checkout, older_than_days)
    kept = [folder for folder in workspaces.with_locks(checkout) if folder not in (*left, *old)]
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
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
    rows = [
        {"kind": kind, "name": str(folder), "bytes": None, "days": None}
        for kind, folders in (("workspace", left), ("record", old))
        for folder in folders
    ]
    rows += json.loads(said.output)["leftovers"]
    done = "removed" if apply else "would be removed"
    create_table_artifact(rows[:_SHOWN_ROWS], key="cleanup", description=f"{len(rows)} things {done}")
    return {"things": len(rows), "bytes": sum(row["bytes"] or 0 for row in rows), "removed": apply}
