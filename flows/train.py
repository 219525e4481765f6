"""The flow `train`: one task a stage, in the order of DVC's graph, two at a time. `python -m flows.train` runs it."""

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveFloat

from flows import chain, clone, pipeline

COMPLETED = "gapbridge.train.completed"
"""The event of a run whose stages are all up to date and, where it had a workspace of its own, pushed."""


@flow(
    name="train",
    task_runner=ThreadPoolTaskRunner(max_workers=chain.WORKERS),  # type: ignore[arg-type]  # Prefect's types are invariant
    persist_result=True,
    result_serializer="json",
    validate_parameters=True,
)
def train(
    workspace: str = ".", own_workspace: bool = False, stage_timeout_minutes: PositiveFloat | None = None
) -> State[Any] | dict[str, Any]:
    """Bring every stage of the workspace's dvc.yaml up to date.

    With `own_workspace` the run works in a clone of `workspace`, pushes its outs and leaves a record. Ends Failed with
    the stage's own error when one fails or takes longer than `stage_timeout_minutes`; nothing more is started then.
    """
    folder = Path(workspace).resolve()
    try:
        if own_workspace:
            ended = clone.run_in_clone(folder, lambda own: _bring_up_to_date(own, stage_timeout_minutes))
        else:
            ended = _bring_up_to_date(folder, stage_timeout_minutes)
    except pipeline.PipelineError as error:
        return Failed(message=str(error))
    if not isinstance(ended, State):
        # prefect.yaml's trigger waits for this and not for the run's state: Prefect 3.8 takes up to 15 minutes to look
        # at the states of a run that was scheduled less than five minutes before, whose first event it never made.
        emit_event(COMPLETED, resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.get_id()}"})
    return ended


def _bring_up_to_date(folder: Path, timeout_minutes: float | None) -> Any:
    """The final state's name of every stage, or Failed."""
    try:
        with pipeline.workspace_lock(folder, get_run_logger().info):
            states = chain.run_all(folder, timeout_minutes)
            failed = chain.failure(states)
            table = "" if failed else pipeline.summary(folder)
            verdict = "" if failed else pipeline.verdict(folder)
    finally:
        pipeline.stop_all()
    _show(states, table, verdict)
    if failed:
        return failed
    print(f"\n{table}", flush=True)
    return {stage: state.name for stage, state in states.items()}


def _show(states: dict[str, State[Any]], table: str, verdict: str) -> None:
    """The final word of this flow run: states, scores, and what the gates of a promotion say."""
    rows = "\n".join(f"| {stage} | {state.name} | {state.message or ''} |" for stage, state in states.items())
    markdown = f"| stage | state | message |\n| --- | --- | --- |\n{rows}\n\n```\n{table}\n```\n\n{verdict}\n"
    create_markdown_artifact(markdown, key="summary", description="What ran, and what came out")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run_here() -> int:
    """Run the flow in this process; 0 when every stage is up to date, 1 when one failed, 130 when stopped."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        state = train(workspace=str(Path.cwd()), return_state=True)
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here", file=sys.stderr)
        return 130
    if not state.is_completed():
        print(f"error: {state.message}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run the flow; its status is that of `run_here`.

    It runs in a session of its own, where Ctrl-C reaches it alone: Prefect's temporary server would else end at once,
    and the flow, which has its last states to tell, ask it for two minutes.
    """
    program = "import sys; from flows.train import run_here; sys.exit(run_here())"
    command = [sys.executable, "-I", "-S", str(pipeline.BOUND), sys.executable, "-c", program]
    with subprocess.Popen(command, start_new_session=True) as flow:
        signal.signal(signal.SIGTERM, _stop)
        try:
            return flow.wait()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            flow.terminate()
            return flow.wait()


if __name__ == "__main__":
    sys.exit(main())
