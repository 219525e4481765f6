"""A stack of its own for a test: its checkout, its addresses, what Prefect knows, and what must have ended."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
Running = TypeVar("Running", bound="Stack")


class Stack:
    """A checkout in a folder, made by `make_checkout`, and the stack that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.home = self.checkout / ".stack"
        self.started_seconds = 0.0
        self.said = ""

    def make_checkout(self) -> None:
        """What the worker runs."""
        raise NotImplementedError

    @property
    def caches(self) -> dict[str, str]:
        """Where the stages keep what outlives a workspace."""
        return {"GAPBRIDGE_CACHE": str(self.folder / "cache"), "GAPBRIDGE_SCRATCH": str(self.folder / "scratch")}

    def call(self, command: str, *more: str, check: bool = True) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= self.caches
        done = subprocess.run(
            [sys.executable, "-m", "infra.stack", command, "--checkout", str(self.checkout), *more],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    @property
    def secrets(self) -> list[str]:
        return list(json.loads((self.home / "settings.json").read_text())["secrets"].values())

    @property
    def environment(self) -> dict[str, str]:
        """What a shell has after sourcing .stack/env."""
        shown = subprocess.run(
            ["sh", "-c", f"set -a; . '{self.home}/env'; env -0"], capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in shown.stdout.split("\0") if "=" in line) | self.caches

    def numbers(self) -> dict[str, int]:
        """The process of each service."""
        return {path.stem: json.loads(path.read_text())["pid"] for path in (self.home / "processes").glob("*.json")}

    def ask(self, what: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """What Prefect knows of runs, tasks or deployments."""
        return self.post(f"{what}/filter", query)

    def post(self, path: str, content: dict[str, Any]) -> Any:
        """Prefect's API."""
        address = f"{self.environment['PREFECT_API_URL']}/{path}"
        request = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


@contextmanager
def running_stack(kind: type[Running]) -> Iterator[Running]:
    """A stack of that kind on free ports, in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="gapbridge-stack-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through
    stack = kind(folder)
    ports = dict(zip(("postgres", "s3", "mlflow", "prefect"), free_ports(4), strict=True))
    try:
        stack.make_checkout()
        began = time.monotonic()
        stack.said = stack.call("up", *(word for name, port in ports.items() for word in ("--port", f"{name}={port}")))
        stack.started_seconds = time.monotonic() - began
        yield stack
    finally:
        stack.call("down", check=False)
        shutil.rmtree(folder)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def commit(folder: Path) -> None:
    for command in (["add", "-A"], ["commit", "-qm", "toy"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command], cwd=folder, check=True)


def processes_that_name(folder: Path) -> list[str]:
    """Live processes with the folder on their command line, in their environment or as their place."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
            texts.append(os.fsencode((process / "cwd").readlink()))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(os.fsencode(folder) in text for text in texts):
            found.append(texts[0].decode())
    return found


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
