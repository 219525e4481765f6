"""A real Prefect server on loopback, what it knows of runs, and processes that must have ended."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY, BUSY_TRIES = 503, 10
"""What Prefect answers while another request writes to SQLite; its own client tries again, too."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Server:
    """A running `prefect server start`; `address` is that of its API."""

    address: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """What the API answers to one request."""
        body = json.dumps(content or {}).encode()
        request = urllib.request.Request(f"{self.address}/{path}", body, {"Content-Type": "application/json"})
        for _ in range(BUSY_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=90) as reply:
                    return json.loads(reply.read() or b"null")
            except urllib.error.HTTPError as refusal:
                if refusal.code != BUSY:
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: the server stays busy")

    def get(self, path: str) -> Any:
        """What the API answers to a question."""
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=90) as reply:
            return json.load(reply)

    def last_run(self, flow: str) -> dict[str, Any]:
        """The flow run of that flow that was made last."""
        query = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
        (run,) = self.post("flow_runs/filter", query)
        return run

    def tasks(self, run: str, count: int) -> dict[str, dict[str, Any]]:
        """The task runs of a flow run by name, when all of them have ended: their news come by a queue."""
        query = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        found: dict[str, dict[str, Any]] = {}

        def ended() -> bool:
            found.update({task["name"]: task for task in self.post("task_runs/filter", query)})
            return len(found) == count and all(task["state_type"] in ENDED for task in found.values())

        wait_for(ended, 30)
        return found

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """The artefacts of a flow run by key, results left out, the newest of each; data of tables as rows."""
        query = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "UPDATED_DESC", "limit": 200}
        found = {one["key"]: one for one in reversed(self.post("artifacts/filter", query)) if one["key"]}
        for one in found.values():
            if one["type"] == "table":
                one["data"] = json.loads(one["data"])
        return found


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def prefect_server(folder: Path, environment: Mapping[str, str], port: int | None = None) -> Iterator[Server]:
    """A server whose database lies in PREFECT_HOME of the environment, until the block ends."""
    port = port or free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log)
    server = Server(f"http://127.0.0.1:{port}/api", process)
    try:
        wait_for(lambda: answers(f"{server.address}/health"), 120)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def stopped_after(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """The process, asked to end when the block does."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def wait_for(condition: Callable[[], Any], seconds: float) -> float:
    """Wait until the condition holds, and say for how long; fails after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited too long"
        time.sleep(0.2)
    return time.monotonic() - started


def number_in(path: Path, seconds: float = 60) -> int:
    """The process id that a stage writes into a file."""
    wait_for(lambda: path.exists() and path.read_text().strip(), seconds)
    return int(path.read_text())


def runs(pid: int) -> bool:
    """Whether the process still does something: one that ended may be listed until it is asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(address: str) -> bool:
    """Whether somebody answers there, and well."""
    try:
        with urllib.request.urlopen(address, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False
