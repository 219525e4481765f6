"""Pipelines to run: a toy one of shell commands, and copies of the tracked files with stores of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ..promotion.conftest import home, made  # noqa: F401 - registered models for the flows
from .served import Server, prefect_server

TOY = """
stages:
  sources: {cmd: "mkdir -p o && cp in o/sources", always_changed: true, outs: [o/sources]}
  left: {cmd: "sleep 1; cp o/sources o/left", deps: [o/sources], outs: [o/left]}
  right: {cmd: "sleep 1; cp o/sources o/right", deps: [o/sources], outs: [o/right]}
  each:
    foreach: [x, "y", z]
    do: {cmd: "cp o/left o/${item}", deps: [o/left], outs: ["o/${item}"]}
  last: {cmd: "sh last.sh", deps: [o/right, o/x, last.sh], outs: [o/last]}
"""

PAIR = """
stages:
  first: {cmd: "mkdir -p o && cp in o/first", deps: [in], outs: [o/first]}
  last: {cmd: "sh last.sh", deps: [o/first, last.sh], outs: [o/last]}
"""


def environment(folder: Path) -> dict[str, str]:
    """This process's, with caches and stores in `folder` and the tree's own programs first."""
    programs = Path(sys.executable).parent
    root = Path(__file__).resolve().parents[2]
    own = {
        "GAPBRIDGE_CACHE": str(folder / "cache"),
        "GAPBRIDGE_SCRATCH": str(folder / "scratch"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    return dict(os.environ) | own


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small pipeline whose stages are shell commands; `last` asks last.sh what to do."""
    workspace = tmp_path / "toy"
    workspace.mkdir()
    (workspace / "dvc.yaml").write_text(TOY)
    (workspace / "in").write_text("1")
    (workspace / "last.sh").write_text("cat o/right o/x > o/last")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=workspace, check=True)
    return workspace


@pytest.fixture
def pair(toy: Path) -> Path:
    """The toy pipeline cut down to two stages: `first`, then `last`, which asks last.sh what to do."""
    (toy / "dvc.yaml").write_text(PAIR)
    (toy / "last.sh").write_text("cp o/first o/last")
    return toy


@pytest.fixture
def toy_environment(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server that the tests share; each looks at its own runs."""
    folder = tmp_path_factory.mktemp("server")
    with prefect_server(folder, environment(folder)) as server:
        yield server


@pytest.fixture
def told(server: Server, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, to which flows that run in this process tell what they do."""
    folder = tmp_path_factory.mktemp("told")
    for name in ("PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, environment(folder)[name])
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    own = {PREFECT_API_URL: server.address, PREFECT_HOME: folder / "prefect", PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(own):
        yield server
        EventsWorker.drain_all(timeout=10)


def copy_of_tracked_files(target: Path, profile: str) -> Path:
    """What a clone of the present tree would hold, without its history, with `profile` as params.yaml."""
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file() and not name.startswith("metrics/") and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target / name)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    call(target, environment(target.parent), "gapbridge", "profile", profile, "--force")
    return target


def call(workspace: Path, env: Mapping[str, str], *command: str, check: bool = True) -> str:
    """What a command said, both streams; a failure shows it."""
    done = subprocess.run(
        command, cwd=workspace, env=dict(env), text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout
