"""The flow `lost`: a run whose process gives no sign of life any more is marked as Crashed.

prefect.yaml starts it when a run's heartbeats cease without its end being told: its machine or its worker and itself
were killed, and nobody is left to say so. Such a run would stay Running for ever.
"""

from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, Crashed

_RESOURCE = "prefect.flow-run."


@flow(name="lost", persist_result=True, result_serializer="json", validate_parameters=True)
def lost(run: str) -> Any:
    """Mark the flow run `run` (its id, or an event's name of it) as Crashed, unless it has ended."""
    number = UUID(run.removeprefix(_RESOURCE))
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(number)
        if found.state is None or found.state.is_final():
            return Completed(name="Unchanged", message=f"{found.name} has ended by itself")
        client.set_flow_run_state(
            number, Crashed(message="no sign of life: its process or machine is gone"), force=True
        )
    return Completed(message=f"{found.name} is marked as crashed")
