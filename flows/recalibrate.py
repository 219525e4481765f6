"""The flow `recalibrate`: new texts or images are embedded, and the alignment is fitted again if it no longer fits.

It runs in minutes: only what is new is encoded, and nothing after the alignment is touched. What has to be trained
again is said, not done.
"""

import json
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import chain, clone, pipeline

NEW_ROWS = ("sources", "ingest", "embed@texts", "embed@images")
DRIFTED = 3
_ALIGNMENT = Path("artifacts", "realign")


@flow(
    name="recalibrate",
    task_runner=ThreadPoolTaskRunner(max_workers=chain.WORKERS),  # type: ignore[arg-type]  # Prefect's types are invariant
    persist_result=True,
    result_serializer="json",
    validate_parameters=True,
)
def recalibrate(workspace: str = ".", own_workspace: bool = False, refit: bool = True) -> Any:
    """Embed what is new in the workspace, ask `gapbridge drift`, and fit the alignment again when that says so.

    With `own_workspace` the run works in a clone of `workspace` on the outs of the newest completed run, pushes its
    outs and leaves a record. Ends Completed as Fits or Refitted (Drifted without `refit`), Failed when a stage fails
    or there is no alignment.
    """
    folder = Path(workspace).resolve()
    try:
        if own_workspace:
            return clone.run_in_clone(folder, lambda own: _locked(own, refit), restored=True)
        return _locked(folder, refit)
    except pipeline.PipelineError as error:
        return Failed(message=str(error))


def _locked(folder: Path, refit: bool) -> Any:
    if not (folder / _ALIGNMENT).is_dir():
        return Failed(message=f"{folder / _ALIGNMENT}: no alignment yet; run the flow train, or `dvc repro`")
    try:
        with pipeline.workspace_lock(folder, get_run_logger().info):
            return _recalibrate(folder, refit)
    finally:
        pipeline.stop_all()


def _recalibrate(folder: Path, refit: bool) -> Any:
    if failed := chain.failure(chain.run_all(folder, only=NEW_ROWS)):
        return failed
    sides = [f"--{side}=artifacts/embed/{side}/{side}" for side in ("texts", "images")]
    said = pipeline.command(folder, "drift", str(_ALIGNMENT), *sides, "--json")
    if said.status not in (0, DRIFTED):
        return Failed(message=f"drift: {said.error}")
    drifted = said.status == DRIFTED
    if drifted and refit and (failed := chain.failure(chain.run_all(folder, only=["realign"]))):
        return failed
    name = "Fits" if not drifted else "Refitted" if refit else "Drifted"
    stale = pipeline.stale(folder)
    figures: dict[str, Any] = json.loads(said.output)
    _show(name, figures, stale)
    return Completed(name=name, message=_sentence(name, stale), data={"drifted": drifted, "stale": stale})


def _sentence(name: str, stale: list[str]) -> str:
    said = {
        "Fits": "the alignment still fits",
        "Refitted": "the alignment did not fit any more and was fitted again",
        "Drifted": "the alignment does not fit any more",
    }[name]
    return f"{said}; to be run again by train: {', '.join(stale) or 'nothing'}"


def _show(name: str, figures: dict[str, Any], stale: list[str]) -> None:
    rows = "\n".join(f"| {key} | {value} |" for key, value in figures.items() if not isinstance(value, (dict, list)))
    markdown = f"{_sentence(name, stale)}\n\n| figure | value |\n| --- | --- |\n{rows}\n"
    create_markdown_artifact(markdown, key="recalibration", description=name)
