"""The flow `promote`: the gates judge a registered version, and the alias moves or stays (`gapbridge promote`)."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed

from flows import pipeline

REFUSED = 3


@flow(name="promote", persist_result=True, result_serializer="json", validate_parameters=True)
def promote(workspace: str = ".", model: str | None = None, dry_run: bool = False) -> Any:
    """Judge `model` (NAME, NAME/NUMBER or NAME@ALIAS; by default the newest version of the one in params.yaml).

    Ends Completed as Promoted, Refused or Unchanged; Failed when nothing could be decided.
    """
    folder = Path(workspace).resolve()
    try:
        named = model or pipeline.registered_name(folder)
    except pipeline.PipelineError as error:
        return Failed(message=str(error))
    if not named:
        return Completed(name="Unchanged", message="report.register_as is null: no model to judge; name one")
    arguments = ["--dry-run", "--json"] if dry_run else ["--json"]
    try:
        said = pipeline.command(folder, "promote", named, *arguments)
    finally:
        pipeline.stop_all()
    if said.status not in (0, REFUSED):
        return Failed(message=said.error)
    decision = json.loads(said.output)
    create_markdown_artifact(decision["markdown"], key="promotion", description=decision["verdict"][:200])
    name = "Refused" if said.status == REFUSED else "Promoted" if decision["gates"] else "Unchanged"
    return Completed(name=name, message=decision["verdict"], data={key: decision[key] for key in ("name", "candidate")})
