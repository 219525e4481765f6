"""DVC from outside: which stages there are, what each waits for, and running one of them as a process."""

import fcntl
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

QUIET_SECONDS = 10
STOP_SECONDS = 10
# What DVC says after every stage to someone new to it.
_HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push`",
          "Updating lock file", "Generating lock file")  # fmt: skip
_DVC_ERROR = "ERROR: "
_POINTERS = ("<https://error.dvc.org/", "Is your cache up to date?")
"""What DVC adds to an error for people at a terminal."""
_SHOWN_CHARACTERS = 300
_NOT_KEPT = "ERROR: failed to transfer"
"""What DVC says, without failing, of an out that its cache had no room for (docs/operations.md)."""
BOUND = Path(__file__).with_name("bound.py")
_running: set[subprocess.Popen[bytes]] = set()


class PipelineError(Exception):
    """The pipeline itself cannot be read; one line says why."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `reason` is its own one-line error when it failed."""

    status: Literal["ran", "cached", "failed"]
    seconds: float
    reason: str | None = None


def graph(workspace: Path) -> dict[str, set[str]]:
    """Every stage of dvc.yaml and the stages whose outs it reads; what leads to the longest chain comes first.

    Raises PipelineError when DVC cannot read the pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        with Repo(str(workspace)) as repo:
            edges = repo.index.graph
            # A file of the user's own under `dvc add` is a node too, but no stage, and has no name.
            stages = [node for node in edges.nodes if isinstance(node, PipelineStage)]
            waits_for = {
                stage.name: {dep.name for dep in edges.successors(stage) if isinstance(dep, PipelineStage)}
                for stage in stages
            }
    except DvcException as error:
        raise PipelineError(f"{workspace}: {' '.join(str(error).split())}") from error
    return {
        stage: waits_for[stage] for stage in sorted(waits_for, key=lambda stage: (-_height(waits_for, stage), stage))
    }


def _height(waits_for: dict[str, set[str]], stage: str) -> int:
    """How many stages stand one after the other behind `stage`."""
    followers = [name for name, deps in waits_for.items() if stage in deps]
    return 1 + max((_height(waits_for, follower) for follower in followers), default=-1)


def run_stage(
    workspace: Path, stage: str, on_line: Callable[[str], None], limit_seconds: float | None = None
) -> Outcome:
    """Run `dvc repro -s STAGE`, handing each line of its output to `on_line` as it comes.

    What takes longer than `limit_seconds` is stopped.
    """
    started = time.monotonic()
    lines: list[str] = []
    late = False
    with _started([sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage], workspace) as process:
        for line in _lines(process):
            if line is None:
                on_line(f"{stage}: at work for {time.monotonic() - started:.0f} s")
            else:
                lines.append(line)
                on_line(line)
            if limit_seconds and not late and time.monotonic() - started > limit_seconds:
                late = True
                _stop([process])
    seconds = time.monotonic() - started
    if late:
        return Outcome(
            "failed", seconds, f"took longer than {limit_seconds:.0f} s and was stopped; it goes on next time"
        )
    if process.returncode != 0:
        return Outcome("failed", seconds, _reason(lines, process.returncode))
    if lost := next((line for line in lines if line.startswith(_NOT_KEPT)), None):
        why = lost.rpartition("] ")[2].partition(":")[0]
        return Outcome("failed", seconds, f"DVC's cache did not take its outs ({why}); then `dvc commit -f {stage}`")
    # Words of DVC 3.67: it has no other way to say what it did (docs/decisions.md).
    ran = any(line.startswith(f"Running stage '{stage}'") for line in lines)
    return Outcome("ran" if ran else "cached", seconds)


def push(workspace: Path, on_line: Callable[[str], None]) -> Outcome:
    """Send the workspace's outs to its DVC remote; what is there already is not sent again."""
    started = time.monotonic()
    lines: list[str] = []
    with _started([sys.executable, "-m", "dvc", "--wait-for-lock", "push"], workspace) as process:
        for line in filter(None, _lines(process)):
            lines.append(line)
            on_line(line)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        return Outcome("failed", seconds, _reason(lines, process.returncode))
    return Outcome("ran", seconds)


def stop_all() -> None:
    """End every running stage with all that it started: asked first, then killed."""
    _stop(list(_running))


def _stop(stopping: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in stopping:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(_group_lives(process) for process in stopping) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in stopping:
        _signal_group(process, signal.SIGKILL)


@contextmanager
def workspace_lock(workspace: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the workspace for one flow run; another one waits here, saying so."""
    path = workspace / ".dvc" / "tmp" / "flow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait(f"another run holds {workspace}; waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Said:
    """What a command of gapbridge said, and the status it ended with."""

    status: int
    output: str
    error: str


def command(workspace: Path, *arguments: str) -> Said:
    """Run `gapbridge ARGUMENTS` to its end; of what it says on stderr, its one-line error is kept."""
    return _told(["gapbridge", *arguments], workspace)


def dvc(workspace: Path, *arguments: str) -> Said:
    """Run `dvc ARGUMENTS` likewise."""
    return _told([sys.executable, "-m", "dvc", *arguments], workspace)


def _told(words: list[str], workspace: Path) -> Said:
    with _started(words, workspace, stderr=subprocess.PIPE) as process:
        output, error = process.communicate()
    lines = [line.strip() for line in error.decode(errors="replace").splitlines()]
    reason = _reason(list(filter(None, lines)), process.returncode)
    return Said(process.returncode, output.decode(errors="replace").strip(), reason)


def summary(workspace: Path) -> str:
    """What `gapbridge summary` prints; its error message where there is nothing to sum up."""
    said = command(workspace, "summary")
    return said.output or said.error


def registered_name(workspace: Path) -> str | None:
    """Under which name `report` registers the workspace's models (`report.register_as`); None when under none.

    Raises PipelineError when params.yaml cannot be read.
    """
    path = workspace / "params.yaml"
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: not YAML ({' '.join(str(error).split())}); mend it") from error
    report = params.get("report") if isinstance(params, dict) else None
    return report.get("register_as") if isinstance(report, dict) else None


def verdict(workspace: Path) -> str:
    """What the gates would say of the version registered last; empty where the params register nothing."""
    if not registered_name(workspace):
        return ""
    said = command(workspace, "promote", "--dry-run")
    return said.output or said.error


def stale(workspace: Path) -> list[str]:
    """The stages that are not up to date, and all that follow from them, sorted; the one that always runs left out."""
    said = dvc(workspace, "status", "--json")
    if said.status != 0:
        raise PipelineError(f"{workspace}: dvc status: {said.error}")
    reasons: dict[str, list[Any]] = json.loads(said.output or "{}")
    found = {stage for stage, why in reasons.items() if why != ["always changed"]}
    waits_for = graph(workspace)
    while more := {stage for stage, deps in waits_for.items() if deps & found} - found:
        found |= more
    return sorted(found)


def _environment(workspace: Path) -> dict[str, str]:
    """This process's, with its Python's programs and the workspace's code first, and progress bars that suit a log.

    DVC hashes the code that lies in the workspace: no other may run.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    progress = {"TQDM_MININTERVAL": "3", "TQDM_MAXINTERVAL": "3", "TQDM_NCOLS": "90"}
    code = os.pathsep.join(filter(None, [str(workspace / "src"), os.environ.get("PYTHONPATH")]))
    return progress | dict(os.environ) | {"PATH": path, "PYTHONPATH": code, "PYTHONUNBUFFERED": "1"}


@contextmanager
def _started(command: list[str], workspace: Path, stderr: int = subprocess.STDOUT) -> Iterator[subprocess.Popen[bytes]]:
    """The process in a group of its own, so that a signal to it reaches everything that it starts.

    It ends with this one, and a stage of gapbridge ends with DVC.
    """
    bound = [sys.executable, "-I", "-S", str(BOUND), *command]
    with subprocess.Popen(
        bound, cwd=workspace, env=_environment(workspace), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
    ) as process:  # fmt: skip
        _running.add(process)
        read_to_the_end = False
        try:
            yield process
            read_to_the_end = True
        finally:
            if not read_to_the_end:
                _signal_group(process, signal.SIGKILL)
            process.wait()
            _running.discard(process)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """Lines as they come, where a progress bar's carriage return ends one too; None when it is quiet for long."""
    output, rest = process.stdout, b""
    if output is None:
        raise AssertionError("it is started with a pipe")
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(QUIET_SECONDS):
                yield None
                continue
            chunk = os.read(output.fileno(), 1 << 16)
            *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            if not chunk:
                whole.append(rest)
            lines = (raw.decode(errors="replace").strip() for raw in whole)
            yield from (line for line in lines if line and not line.startswith(_HINTS))
            if not chunk:
                return


def _reason(lines: Sequence[str], returncode: int) -> str:
    """The program's own error, an exception it did not expect, DVC's error, or the last thing said; one line."""
    if returncode == -signal.SIGTERM:
        return "was stopped; the next run goes on from here"
    for mark in (r"error: (.*)", r"([\w.]+(?:Error|Exception)\b.*)"):
        for line in reversed(lines):
            if found := re.fullmatch(mark, line):
                return found[1]
    starts = [number for number, line in enumerate(lines) if line.startswith(_DVC_ERROR)]
    if starts:  # it may go on, for example with the targets that are meant
        whole = [line for line in lines[starts[-1] :] if not line.startswith(_POINTERS)]
        return " ".join(" ".join(whole).removeprefix(_DVC_ERROR).split())[:_SHOWN_CHARACTERS]
    said = [line for line in lines if "%|" not in line]  # a progress bar is no reason
    return f"{said[-1]} (status {returncode})" if said else f"ended with status {returncode}"


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything that the process started still runs: DVC often ends before the stage that it was running."""
    process.poll()  # an ended process that nobody asked for counts as a member of its group
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
