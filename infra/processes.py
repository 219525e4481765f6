"""Background processes: started in a session of their own, known again later, stopped with all that they started."""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.settings import write_private

_POLL_SECONDS = 0.1
_ALONE_SECONDS = 5
# Kept: a Popen that is collected while its process runs takes that for a mistake, and here it is the purpose.
_started: list[subprocess.Popen[bytes]] = []
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """A process that cannot be taken for another one: a number is used again, a number with its start is not."""

    number: int
    started: str

    def lives(self) -> bool:
        """Whether it still runs; one that ended and was not asked for does not."""
        entry = _read(self.number)
        return entry is not None and entry.started == self.started and not entry.ended

    def signal(self, number: int) -> None:
        """Send a signal to this process alone, if it still is itself."""
        if self.lives():
            with suppress(ProcessLookupError):
                os.kill(self.number, number)


@dataclass(frozen=True)
class _Entry:
    parent: int
    started: str
    ended: bool


def start(
    command: list[str], log: Path, environment: Mapping[str, str], folder: Path, account: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`, as `account` if given, with both its streams in `log`."""
    log.unlink(missing_ok=True)
    identity: dict[str, Any] = (
        {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    )
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), umask=0o077, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, **identity,
        )  # fmt: skip
    _started.append(process)
    return process


def remember(path: Path, number: int) -> Process | None:
    """Write down which process it is; None when it ended already."""
    if (entry := _read(number)) is None:
        return None
    process = Process(number, entry.started)
    write_private(path, json.dumps({"pid": process.number, "started": process.started}) + "\n")
    return process


def recall(path: Path) -> Process | None:
    """The process that `remember` wrote down, provided that it still runs."""
    try:
        content = json.loads(path.read_text())
        process = Process(int(content["pid"]), str(content["started"]))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return process if process.lives() else None


def stop(path: Path, number: int, seconds: float) -> bool:
    """End the remembered process by the signal `number`, with all that it started; the rest is killed after `seconds`.

    A parent that ends its children itself is left to do so; a while later they are asked too. Returns whether there
    was a process.
    """
    process = recall(path)
    if process is not None:
        family = [process, *_descendants(process.number)]
        process.signal(number)
        if not _ended(family, _ALONE_SECONDS):
            for member in family:
                member.signal(signal.SIGTERM)
            _ended(family, seconds)
        for member in {*family, *_descendants(process.number)}:  # what it started meanwhile, too
            member.signal(signal.SIGKILL)
        _ended(family, seconds)
        _started[:] = [mine for mine in _started if mine.poll() is None]
    path.unlink(missing_ok=True)
    return process is not None


def _ended(family: list[Process], seconds: float) -> bool:
    """Whether all of them end within so many seconds."""
    deadline = time.monotonic() + seconds
    while any(member.lives() for member in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _descendants(number: int) -> list[Process]:
    """Everything that the process started, directly or not, and that runs."""
    table = {int(path.name): entry for path in Path("/proc").glob("[0-9]*") if (entry := _read(int(path.name)))}
    found, parents = [], {number}
    while parents:
        children = {child for child, entry in table.items() if entry.parent in parents}
        found += [Process(child, table[child].started) for child in children if not table[child].ended]
        parents = children
    return found


def _read(number: int) -> _Entry | None:
    """What the kernel says of a process (proc(5): fields 3, 4 and 22 of stat)."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Entry(int(fields[1]), f"{_BOOT.read_text().strip()}/{fields[19]}", fields[0] in "ZX")
