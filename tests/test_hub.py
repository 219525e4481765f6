"""A hub on loopback that refuses as the real one does; the real client asks it, and every answer is one line."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REFUSALS = {
    "owner/gated": (403, "GatedRepo"),
    "owner/absent": (401, "RepoNotFound"),
    "owner/old": (404, "RevisionNotFound"),
}
COMMIT = "0" * 40
ASK = """
import json, sys, tempfile
from pathlib import Path
from gapbridge.embeddings.encoders import open_pretrained
from gapbridge.errors import GapbridgeError
from gapbridge.model.llm import pin_llm

def told(call):
    try:
        call()
    except GapbridgeError as error:
        return str(error)

commit = "0" * 40
lines = {}
for name in sys.argv[1:]:
    lines["llm " + name] = told(lambda: pin_llm(Path(tempfile.mkdtemp()), name, commit))
    lines["open_clip " + name] = told(lambda: open_pretrained("hf-hub:" + name, commit))
    lines["transformers " + name] = told(lambda: open_pretrained("transformers:" + name, commit))
print(json.dumps(lines))
"""


class Refusing(BaseHTTPRequestHandler):
    """Answers every question about a model with its refusal."""

    def do_GET(self) -> None:
        name = next((name for name in REFUSALS if name in self.path), None)
        status, code = REFUSALS[name] if name else (404, "EntryNotFound")
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused: {code}\\nfor a reason")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815, http.server's own name

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What is said of every refused model, by every part that may ask for one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
           "HF_HOME": str(tmp_path_factory.mktemp("hub"))}  # fmt: skip
    try:
        command = [sys.executable, "-c", ASK, *REFUSALS]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True)
    finally:
        server.shutdown()
        server.server_close()
    yield json.loads(done.stdout)


@pytest.mark.parametrize("part", ["llm", "open_clip", "transformers"])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("owner/gated", "accept them on its page, then run `hf auth login`"),
        ("owner/absent", "no such model, or a private one: check OWNER/NAME"),
        ("owner/old", "no such revision: name one of its commits"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line_with_the_remedy(
    part: str, name: str, remedy: str, lines: dict[str, str]
) -> None:
    line = lines[f"{part} {name}"]
    assert name in line and remedy in line and "\n" not in line


def unreachable(home: Path) -> dict[str, str]:
    """The environment of a machine on which nobody answers as the hub."""
    own = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_HOME": str(home)}
    return dict(os.environ) | own


def test_an_unreachable_hub_is_told_at_once_and_in_silence(tmp_path: Path) -> None:
    """The client would ask for the files of a commit six times, and tell each of its tries."""
    no_waiting = "import time\ndef sleep(seconds): raise SystemExit(f'waits for {seconds} s')\ntime.sleep = sleep\n"
    command = [sys.executable, "-c", no_waiting + ASK, "owner/far"]
    done = subprocess.run(command, env=unreachable(tmp_path), capture_output=True, text=True, check=True)
    lines = json.loads(done.stdout)
    assert len(lines) == 3
    for part, line in lines.items():
        assert "owner/far" in line and "hub cannot be reached" in line and "name the folder" in line, part
    assert "thrown while requesting" not in done.stderr and "Retrying" not in done.stderr


def test_what_was_fetched_before_needs_no_hub(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--owner--far" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    program = f"from gapbridge.hub import fetched; print(fetched('owner/far', '{COMMIT}', ['*.json']))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=unreachable(tmp_path), capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == folder


def test_without_a_network_the_remedy_is_a_folder() -> None:
    """The tests' own setting: offline."""
    from gapbridge.embeddings.encoders import open_pretrained
    from gapbridge.errors import ArtifactError

    with pytest.raises(ArtifactError, match=r"nobody/nothing: cannot be fetched \(not on this machine, .* folder\)"):
        open_pretrained("hf-hub:nobody/nothing")
