import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import processes

# A parent that ignores SIGTERM and has a child in a session of its own.
FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_started_with_its_log_and_known_again(tmp_path: Path) -> None:
    program = (
        "import os; print(os.environ['WORD'], os.getsid(0) == os.getpid(), flush=True); import time; time.sleep(300)"
    )
    log, file = tmp_path / "log", tmp_path / "process.json"
    process = processes.start([sys.executable, "-c", program], log, {"WORD": "hello"}, tmp_path, None)
    remembered = processes.remember(file, process.pid)
    try:
        deadline = time.monotonic() + 20
        while not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.read_text().strip() == "hello True"
        assert log.stat().st_mode & 0o777 == 0o600
        assert processes.recall(file) == remembered and remembered is not None
    finally:
        assert processes.stop(file, signal.SIGTERM, 10)
    assert process.wait(10) == -signal.SIGTERM
    assert not file.exists() and not processes.stop(file, signal.SIGTERM, 10)


def test_a_number_used_again_is_another_process(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "process.json"
    assert processes.remember(file, sleeper.pid) is not None
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"started": content["started"] + "0"}))
    assert processes.recall(file) is None
    assert not processes.stop(file, signal.SIGKILL, 1)
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_file_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "process.json").write_text(text)
    assert processes.recall(tmp_path / "process.json") is None


def test_descendants_go_with_a_parent_that_does_not_listen(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "process.json"
    parent = processes.start([sys.executable, "-c", FAMILY], log, dict(os.environ), tmp_path, None)
    processes.remember(file, parent.pid)
    deadline = time.monotonic() + 20
    while not log.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.05)
    child = processes.remember(tmp_path / "child.json", int(log.read_text()))
    assert child is not None and child.lives()
    processes.stop(file, signal.SIGTERM, 0.5)
    assert parent.wait(10) == -signal.SIGKILL
    assert not child.lives()
