"""A flow run in a workspace of its own: begun there, its outs pushed, its record kept, and then the workspace goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import pipeline
from flows import workspace as workspaces


@task(
    task_run_name="publish",
    persist_result=True,
    result_serializer="json",
    cache_policy=NO_CACHE,  # as in flows/chain.py
    retries=2,
    retry_delay_seconds=15,
)
def publish(workspace: str) -> State[Any]:
    """Push the outs to the DVC remote, once more if it did not answer."""
    try:
        outcome = pipeline.push(Path(workspace), get_run_logger().info)
    finally:
        pipeline.stop_all()
    if outcome.status == "failed":
        return Failed(message=outcome.reason)
    return Completed(data={"seconds": round(outcome.seconds, 1)})


def run_in_clone(checkout: Path, work: Callable[[Path], Any], restored: bool = False) -> Any:
    """What `work` gives in a fresh clone of the checkout; Failed also when its outs could not be pushed.

    With `restored` the outs of the newest record of a completed run lie there. Raises PipelineError where there can
    be no clone, or no such record.
    """
    name = f"{flow_run.get_name()}-{str(flow_run.get_id())[:8]}"
    with workspaces.own_workspace(checkout, name) as clone:
        if restored:
            get_run_logger().info(f"outs of {workspaces.restore(checkout, clone)}")
        return _keep(checkout, clone, name, work(clone))


def _keep(checkout: Path, clone: Path, name: str, ended: Any) -> Any:
    """Keep the record of a run and push its outs: how the run ends in all."""
    failed = isinstance(ended, State) and not ended.is_completed()
    description = {"flow_run": str(flow_run.get_id()), "state": "Failed" if failed else "Completed"}
    record = workspaces.keep_record(checkout, name, clone, description)
    get_run_logger().info(f"record: {record}")
    if not workspaces.has_remote(clone):
        get_run_logger().info("no DVC remote: the outs stay in this machine's cache")
        return ended
    pushed = publish(str(clone), return_state=True)
    return ended if failed or pushed.is_completed() else Failed(message=f"publish: {pushed.message}")
