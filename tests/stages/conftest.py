"""A workspace whose seven sets are a user's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from .direct import run_directly

ROWS = 6


@pytest.fixture
def set_params(workspace: Path) -> Callable[..., None]:
    """Changes sections of the workspace's params.yaml."""

    def change(**sections: dict[str, Any]) -> None:
        path = workspace / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            params[name].update(values)
        path.write_text(yaml.safe_dump(params))

    return change


@pytest.fixture
def user_files(workspace: Path, set_params: Callable[..., None]) -> Path:
    """The folder `data` of the workspace, with a few rows of every set, named in params.yaml."""
    data = workspace / "data"
    data.mkdir()
    for seed, name in enumerate(("images", "instruct", "probe", "benchmark")):
        (data / name).mkdir()
        for n in range(ROWS):
            noise = np.random.default_rng((seed, n)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(data / name / f"{n}.png")
    for name in ("encoder", "instruct", "probe"):
        (data / f"{name}.json").write_text(json.dumps([_dialogue(n, image=f"{n}.png") for n in range(ROWS)]))
    (data / "llm.json").write_text(json.dumps([_dialogue(n, context="a cat") for n in range(ROWS)]))
    _write_lines(data / "texts.jsonl", [{"text": f"text {n}"} for n in range(ROWS)])
    questions = [
        {"question_id": n, "image": f"{n}.png", "text": "Is it?", "label": "yes" if n % 2 else "no"}
        for n in range(ROWS)
    ]
    _write_lines(data / "benchmark.jsonl", questions)
    sources = {
        "texts": {"format": "jsonl", "path": "data/texts.jsonl"},
        "images": {"format": "folder", "path": "data/images"},
        "encoder": {"format": "llava", "path": "data/encoder.json", "images": "data/images"},
        "llm": {"format": "llava", "path": "data/llm.json"},
        "instruct": {"format": "llava", "path": "data/instruct.json", "images": "data/instruct"},
        "probe": {"format": "llava", "path": "data/probe.json", "images": "data/probe"},
        "benchmark": {"format": "pope", "path": "data/benchmark.jsonl", "images": "data/benchmark"},
    }
    set_params(sources=sources, ingest={"min_rows": ROWS - 1})
    return data


def _dialogue(number: int, **fields: str) -> dict[str, Any]:
    spoken = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"thing {number}"}]
    return {"id": number, "conversations": spoken, **fields}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are files alone: the process that mirrors them takes seconds (tests/test_tracking.py has it)."""
    monkeypatch.setattr("gapbridge.tracking.start_mirror", lambda folder: None)


@pytest.fixture
def run_bare(workspace: Path) -> Callable[[str], dict[str, Any]]:
    """Runs a stage of the workspace without the runner."""
    return lambda name: run_directly(workspace, name)
