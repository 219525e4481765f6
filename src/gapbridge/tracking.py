"""What a stage tells the world about itself: files in runs/<stage>/<run>/, which MLflow mirrors where it is installed.

The mirror is a process of its own (`python -m gapbridge.mirror RUN_FOLDER`) that reads those files while the stage
writes them. So importing MLflow and talking to its store cost the stage next to nothing, a stage that is killed still
leaves a run that says so, and where MLflow is missing only the mirror is.
"""

import contextlib
import importlib.util
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from gapbridge import artifacts

FORMAT_VERSION = 1
MIRROR_TIMEOUT_SECONDS = 60
CODE_TAG = "code.digest"
"""Of the stage's own code, so that a run made elsewhere can be told from one made by other code."""
# Recorded by digest already, so that they do not make a run "dirty".
_RECORDED = ("dvc.lock", "params.yaml", "metrics")

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes what a stage reports while it runs. Nothing logged here enters an out."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at one step, kept in runs/<stage>/<run>/metrics.jsonl and sent to MLflow in batches."""

    def finish(self, outs: Mapping[str, Path], metrics: Mapping[str, Any]) -> None:
        """The stage ended well: its outs by the names dvc.yaml gives them, and its final metrics."""


class RunFolder:
    """A Tracker that writes files: run.json, metrics.jsonl, and last of all status.json."""

    def __init__(
        self,
        workspace: Path,
        label: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        code_digest: str | None = None,
    ) -> None:
        name = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        self.path = workspace / "runs" / label / name
        self.path.mkdir(parents=True)
        self.ended = False
        tags = {"stage": label, "gapbridge.format_version": str(FORMAT_VERSION), **git_tags(workspace)}
        tags |= {f"input.{name}": digest for name, digest in inputs.items()}
        tags |= {CODE_TAG: code_digest} if code_digest else {}
        record = {"format_version": FORMAT_VERSION, "stage": label, "params": flatten(params), "tags": tags}
        artifacts.write_json(self.path / "run.json", record | {"started_ms": _now_ms(), "workspace": str(workspace)})
        self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Append one line; see Tracker."""
        line = {"step": step, "time_ms": _now_ms(), "values": {name: float(value) for name, value in values.items()}}
        self._metrics.write(json.dumps(line) + "\n")

    def finish(self, outs: Mapping[str, Path], metrics: Mapping[str, Any]) -> None:
        """Record digests and metrics of a good end; see Tracker."""
        digests = {name: artifacts.dvc_digest(path) for name, path in outs.items()}
        locations = {name: str(path) for name, path in outs.items()}
        self._end({"status": "FINISHED", "outputs": digests, "locations": locations, "metrics": dict(metrics)})

    def fail(self, error: BaseException | None) -> None:
        """Record a bad end with its one-line reason."""
        text = f"{type(error).__name__}: {error}".strip(": ")
        self._end({"status": "FAILED", "error": " ".join(text.split())})

    def _end(self, status: dict[str, Any]) -> None:
        self._metrics.close()
        artifacts.write_json(self.path / "status.json", status | {"ended_ms": _now_ms()})
        self.ended = True


@contextmanager
def open_tracker(
    workspace: Path,
    label: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    only_news: bool = False,
    code_digest: str | None = None,
) -> Iterator[Tracker]:
    """A tracker for one run of the stage `label`, closed as FAILED unless `finish` was called.

    `only_news` is for a stage that runs every time: a run that ends with the outs of the one before is forgotten.
    """
    run = RunFolder(workspace, label, params, inputs, code_digest)
    mirror = None if only_news else start_mirror(run.path)
    try:
        yield run
    finally:
        if not run.ended:
            run.fail(sys.exc_info()[1])
        if only_news and _is_old_news(run.path):
            shutil.rmtree(run.path)
        else:
            wait_for_mirror(mirror or (start_mirror(run.path) if only_news else None), run.path)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists and other values stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def git_tags(workspace: Path) -> dict[str, str]:
    """The commit, and whether anything but what is recorded by digest differs from it; empty outside git.

    What git cannot tell counts as different.
    """

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=workspace, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if shutil.which("git") is None or (commit := git("rev-parse", "HEAD")) is None:
        return {}
    changed = git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in _RECORDED))
    return {"git.commit": commit, "git.dirty": str(changed != "").lower()}


def start_mirror(run_folder: Path) -> subprocess.Popen[bytes] | None:
    """Start the process that mirrors a run folder to MLflow; None where MLflow is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        return None
    with (run_folder / "mirror.log").open("wb") as log:
        # A session of its own: when a signal ends the stage and its group, the mirror still writes that down.
        return subprocess.Popen(
            [sys.executable, "-m", "gapbridge.mirror", str(run_folder), str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def wait_for_mirror(mirror: subprocess.Popen[bytes] | None, run_folder: Path) -> None:
    """Wait until MLflow has it all; if it does not take it, say so and how to send it later: the files are there."""
    if mirror is None:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        mirror.wait(MIRROR_TIMEOUT_SECONDS)
    if mirror.poll() is None:
        mirror.kill()
        mirror.wait()
    if mirror.returncode != 0:
        again = f"python -m gapbridge.mirror {run_folder}"
        logger.warning(
            "warning: MLflow did not take this run (see %s/mirror.log); send it with `%s`", run_folder, again
        )


def _is_old_news(run_folder: Path) -> bool:
    status = artifacts.read_json(run_folder / "status.json")
    if status["status"] != "FINISHED":
        return False
    params = artifacts.read_json(run_folder / "run.json")["params"]
    for earlier in sorted(run_folder.parent.glob("*/status.json"), reverse=True):
        if earlier.parent != run_folder:
            before = artifacts.read_json(earlier)
            same_params = artifacts.read_json(earlier.parent / "run.json")["params"] == params
            return before.get("outputs") == status["outputs"] and same_params
    return False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
