"""A workspace in git whose models can be registered: figures and predictions as the stages leave them, no weights."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapbridge import artifacts
from gapbridge.model_package import register

NAME = "tiny"
Register = Callable[..., int]


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def home(workspace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace, committed, and the current folder."""
    shutil.copyfile(empty_store, workspace / "mlflow.db")
    (workspace / "requirements.lock").write_text("torch==1\n")
    (workspace / ".gitignore").write_text("artifacts/\nruns/\nmlflow.db\nmlartifacts/\n")
    git(workspace, "init", "-q")
    git(workspace, "add", "-A")
    git(workspace, "commit", "-qm", "all of it")
    monkeypatch.chdir(workspace)
    return workspace


@pytest.fixture
def made(home: Path) -> Register:
    """Registers a model that answers `right` of 40 yes/no questions rightly; returns its version."""

    def make(right: int = 30, gap: float = 0.1, **pope: Any) -> int:
        model, answers = home / "artifacts" / "instruct", home / "artifacts" / "evaluate"
        for folder in (model, answers, home / "artifacts" / "report"):
            folder.mkdir(parents=True, exist_ok=True)
        (model / "config.json").write_text(json.dumps({"right": right}))
        lines = [_line(n, n < right) for n in range(40)]
        (answers / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        figures = {"score": right / 40, "protocol": "yes-no/1", "yes_rate": 0.5} | pope
        artifacts.write_json(home / "metrics/evaluate.json", {"benchmarks": {"pope": figures}})
        artifacts.write_json(home / "metrics/realign.json", {"gap_heldout": gap, "sampling_floor": 0.1, "scale": 0.9})
        artifacts.write_json(home / "metrics/ingest.json", {"sets": {"texts": {"rows": 7, "groups": 5}}})
        digests = {name: name * 2 for name in ("ingest", "realign", "instruct", "evaluate")}
        digests["instruct"] = artifacts.dvc_digest(model)
        stages = {name: {"outs": [{"path": f"artifacts/{name}", "md5": digest}]} for name, digest in digests.items()}
        stages["evaluate"]["deps"] = [{"path": "artifacts/instruct", "md5": digests["instruct"]}]
        stages["report"] = {"deps": [{"path": "artifacts/evaluate", "md5": "of an earlier run"}], "outs": []}
        (home / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
        card = home / "artifacts" / "report" / "model_card.md"
        card.write_text("# card")
        return register(home, NAME, model, card)

    return make


def _line(number: int, correct: bool) -> dict[str, Any]:
    asked = {"prompt": f"is it {number}", "answer": "yes", "protocol": "yes-no/1", "benchmark": "pope"}
    return {"item_id": f"q{number}", "group_id": f"g{number}", "correct": correct, "novel": False, **asked}
