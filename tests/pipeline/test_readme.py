"""What README tells people to type, typed in a copy of the tree at smoke size."""

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from gapbridge.params import load_params

from .conftest import copy_of_tracked_files, environment

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SERVERS = {"mlflow ui": "/health", "prefect server": "/api/health"}
NESTED = {"make test"}  # what runs this file: its recipe is only read
HAS_HAPPENED = {". .venv/bin/activate"}
START_SECONDS = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and line not in HAS_HAPPENED]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the installed environment as its `.venv`, and matrices for the alignment."""
    workspace = tmp_path_factory.mktemp("readme") / "workspace"
    workspace.mkdir()
    copy_of_tracked_files(workspace, "smoke")
    (workspace / ".venv").symlink_to(sys.prefix)
    random = np.random.default_rng(0)
    for name, mean in (("T", 1), ("I", 2), ("NEW", 1)):
        np.save(workspace / f"{name}.npy", (random.normal(0, 1, (200, 16)) + mean).astype(np.float32))
    return workspace


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_does_what_it_is_there_for(copy: Path) -> None:
    env = environment(copy.parent)
    for command in commands():
        server = next((name for name in SERVERS if command.startswith(name)), None)
        if server:
            serve(command, SERVERS[server], copy, env)
        else:
            run(command, copy, env)
    assert (copy / "artifacts/report/index.html").is_file()
    assert (copy / "alignment").is_dir()


def run(command: str, workspace: Path, env: Mapping[str, str]) -> None:
    """To its end, in a shell, without installing again."""
    make = "make --dry-run" if command in NESTED else "make --assume-old=.venv/.installed"
    done = subprocess.run(
        ["bash", "-ec", re.sub(r"^make\b", make, command)], cwd=workspace, env=dict(env), text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
    assert done.stdout.strip(), f"{command} says nothing"


def serve(command: str, path: str, workspace: Path, env: Mapping[str, str]) -> None:
    """On a free port, until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (workspace.parent / "server.log").open("wb") as log:
        process = subprocess.Popen([*shlex.split(command), "--port", str(port)],
                                   cwd=workspace, env=dict(env), stdout=log, stderr=log)  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}{path}"):
            assert process.poll() is None and time.monotonic() < deadline, command
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as reply:
            return reply.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def test_the_params_shown_for_own_data_are_params(tmp_path: Path) -> None:
    params = yaml.safe_load((Path(__file__).resolve().parents[2] / "profiles/default.yaml").read_text())
    (shown,) = (yaml.safe_load(block) for block in blocks("yaml"))
    for section, values in shown.items():
        params[section] |= values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert [source.weight for source in load_params(tmp_path / "params.yaml").sources.texts] == [2, 1]
