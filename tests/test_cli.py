import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gapbridge import cli


def gapbridge(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from gapbridge.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=workspace, capture_output=True, text=True, check=False
    )


def test_help_names_every_command_and_is_quick(workspace: Path) -> None:
    started = time.perf_counter()
    done = gapbridge(workspace, "--help")
    assert time.perf_counter() - started < 1.5
    for command in (
        "sources",
        "report",
        "align",
        "ask",
        "describe",
        "profile",
        "plan",
        "list",
        "predict",
        "export",
        "summary",
    ):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["profile", "huge"], "profile huge"),
        (["ask", "picture.png", "what?"], "no trained model"),
        (["describe", "picture.png"], "no trained model"),
        (["predict", "pictures", "--out", "answers.jsonl"], "no trained model"),
        (["export", "model"], "no trained model"),
        (["plan", "--profile", "huge"], "profile huge"),
        (["realign"], "artifacts/embed"),
    ],
)
def test_an_expected_error_is_one_line_and_leaves_nothing(
    workspace: Path, empty_store: Path, arguments: list[str], said: str
) -> None:
    shutil.copyfile(empty_store, workspace / "mlflow.db")
    done = gapbridge(workspace, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (workspace / "artifacts" / "realign").exists() and not (workspace / "metrics").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device; free space and run it again"),
        (errno.EROFS, "Read-only file system; work in a folder that can be written"),
        (errno.EACCES, "Permission denied; see to its permissions and run it again"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), "artifacts/embed")

    monkeypatch.setattr(cli.cli, "main", refused)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: artifacts/embed: {said}\n"


def test_wrong_params_stop_a_stage_before_it_starts(workspace: Path) -> None:
    (workspace / "params.yaml").write_text("seed: 0\n")
    done = gapbridge(workspace, "sources")
    assert done.returncode == 1 and "params.yaml" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in workspace.iterdir()) == ["dvc.yaml", "params.yaml"]


@pytest.mark.parametrize("arguments", [["embed"], ["embed", "videos"], ["nonsense"]])
def test_wrong_usage_exits_with_2(workspace: Path, arguments: list[str]) -> None:
    assert gapbridge(workspace, *arguments).returncode == 2


def test_telemetry_is_off_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert os.environ["DO_NOT_TRACK"] == "0" and os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_stage_dies_with_the_dvc_that_started_it() -> None:
    child = (
        "from gapbridge.stages.runner import die_with_parent; import time\n"
        "die_with_parent(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys\n"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}]); print(process.pid, flush=True); process.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child_pid = int(process.stdout.readline())
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and Path(f"/proc/{child_pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child_pid}").exists()


@pytest.mark.parametrize(("command", "expected"), [("align", "1"), ("drift", "1"), ("gap", None)])
def test_the_alignment_keeps_the_matrix_library_to_one_thread(
    command: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks go over threads already; the diagnosis has products that are large enough to be shared."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    with pytest.raises(SystemExit):
        cli.cli.main([command, "--help"])
    assert os.environ.get("OPENBLAS_NUM_THREADS") == expected
