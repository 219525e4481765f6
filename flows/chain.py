"""The chain of stages as Prefect tasks: in the order of DVC's graph, two at a time, with a bar, a table and a retry."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, Failed

from flows import pipeline

WORKERS = 2
_KILLED = re.compile(r"exited with (-9|137)\b")
"""What DVC says of a stage that was killed: by bash, and by a shell that gives 128 + 9."""


def can_help(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether to try once more: a stage that was killed from outside (no memory, an operator) goes on where it was."""
    del task, run
    return bool(_KILLED.search(state.message or ""))


@task(
    task_run_name="{stage}",
    persist_result=True,
    result_serializer="json",
    cache_policy=NO_CACHE,  # else a second try finds the Failed state of the first one and takes it for its result
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=can_help,
)
def run(stage: str, workspace: str, timeout_minutes: float | None = None) -> State[Any]:
    """One stage, by DVC; Cached when nothing that it depends on has changed."""
    limit = timeout_minutes * 60 if timeout_minutes else None
    outcome = pipeline.run_stage(Path(workspace), stage, get_run_logger().info, limit)
    result = {"stage": stage, "status": outcome.status, "seconds": round(outcome.seconds, 1)}
    if outcome.status == "failed":
        return Failed(message=outcome.reason)
    return Completed(name="Cached" if outcome.status == "cached" else "Completed", data=result)


def run_all(
    workspace: Path, timeout_minutes: float | None = None, only: Collection[str] | None = None
) -> dict[str, State[Any]]:
    """Every stage's final state, or that of the stages named; a stage starts when all it waits for is done.

    After a failure nothing starts. Raises PipelineError when DVC cannot read the pipeline.
    """
    whole = pipeline.graph(workspace)
    chosen = whole.keys() if only is None else whole.keys() & set(only)
    waiting = {stage: deps & chosen for stage, deps in whole.items() if stage in chosen}
    total, bar = len(waiting), create_progress_artifact(0.0, key="progress", description="stages done")
    futures: dict[str, PrefectFuture[Any]] = {}
    states: dict[str, State[Any]] = {}
    while waiting or len(states) < len(futures):
        failed = any(not state.is_completed() for state in states.values())
        ready = [] if failed else [stage for stage, deps in waiting.items() if deps <= states.keys()]
        for stage in ready[: WORKERS - (len(futures) - len(states))]:
            upstream = [futures[dep] for dep in waiting.pop(stage)]
            futures[stage] = run.submit(stage, str(workspace), timeout_minutes, wait_for=upstream, return_state=False)
        running = {future: stage for stage, future in futures.items() if stage not in states}
        if not running:
            break
        done = next(as_completed(list(running)))
        done.wait()
        states[running[done]] = done.state
        update_progress_artifact(bar, 100.0 * len(states) / total)  # type: ignore[arg-type]  # no coroutine in a flow
    _show(workspace, states)
    return states


def failure(states: Mapping[str, State[Any]]) -> State[Any] | None:
    """The flow's Failed state, with each failed stage's own error; None when none failed."""
    failed = {stage: state.message for stage, state in states.items() if not state.is_completed()}
    if not failed:
        return None
    return Failed(message="; ".join(f"{stage}: {message}" for stage, message in failed.items()))


def _show(workspace: Path, states: Mapping[str, State[Any]]) -> None:
    """The table of this flow run: what became of each stage, and its run in MLflow."""
    rows = [
        {"stage": stage, "state": state.name, "message": state.message or "", "mlflow": _mlflow_run(workspace, stage)}
        for stage, state in states.items()
    ]
    create_table_artifact(rows, key="stages", description="What became of each stage")


def _mlflow_run(workspace: Path, stage: str) -> str:
    """A link to the newest run of a stage, where MLflow is a server; else its id."""
    records = sorted((workspace / "runs" / stage).glob("*/mlflow.json"))
    if not records:
        return ""
    record: dict[str, str] = json.loads(records[-1].read_text())
    if not record["uri"].startswith("http"):
        return record["run_id"]
    return f"[{record['run_id'][:8]}]({record['uri']}/#/experiments/{record['experiment_id']}/runs/{record['run_id']})"


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Prefect logs a returned Failed state as if an exception were there; nobody needs to read "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True


logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)
