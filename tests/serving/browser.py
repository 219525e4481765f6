"""Headless Chromium over its DevTools protocol: as much of it as a test of one page needs."""

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
_COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown")


class Page:
    """One open page; what it complains of gathers in `complaints`."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._numbers = connection, itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=1000, height=640, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        self._connection.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            params = message.get("params", {})
            if message.get("method") in _COMPLAINTS and params.get("entry", {}).get("level") != "verbose":
                self.complaints.append(json.dumps(params))

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """The expression's value as soon as it is true."""
        deadline = time.monotonic() + 30
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, expression
            time.sleep(0.05)
        return value

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file as a person does in the dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def write(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """The Enter key."""
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            self.call("Input.dispatchKeyEvent", type=kind, **key)


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile and one page."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program, f"this test needs one of {', '.join(NAMES)} on PATH; install it (Debian: apt-get install chromium)"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
               f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"]  # fmt: skip
    with subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(
                seen.group() for line in process.stderr if (seen := re.search(r"ws://127\.0\.0\.1:\S+", line))
            )
            with connect(address, max_size=None) as connection:
                yield Page(connection)
        finally:
            process.kill()
