"""A probe is written by the model that was evaluated and read by whoever has its package."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gapbridge.errors import ArtifactError
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.probe import PROBE_FILE, read_probe, write_probe

from .tiny import QUESTIONS


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, batch_size=3)


def _pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 52, 3), dtype=np.uint8)) for _ in QUESTIONS]


def test_the_model_that_wrote_it_passes_and_another_does_not(predictor: Predictor, tmp_path: Path) -> None:
    path = write_probe(tmp_path, predictor, _pictures(), QUESTIONS)
    first = path.read_bytes()
    assert write_probe(tmp_path, predictor, _pictures(), QUESTIONS).read_bytes() == first, "the same bytes each time"
    probe = read_probe(tmp_path)
    assert probe is not None and probe.questions == tuple(QUESTIONS)
    assert [picture.tobytes() for picture in probe.pictures] == [picture.tobytes() for picture in _pictures()]
    assert probe.differing(predictor) == []
    short = read_probe(write_probe(tmp_path, predictor, _pictures(), QUESTIONS, max_new_tokens=1).parent)
    assert short is not None and short.max_new_tokens == 1
    assert short.differing(predictor) == [], "answers are as long as they were"
    wrong = replace(probe, answers=("red", *probe.answers[1:]))
    assert wrong.differing(predictor) == [(QUESTIONS[0], "red", probe.answers[0])]


def test_no_probe_is_none(tmp_path: Path) -> None:
    assert read_probe(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"questions": []},
        {"questions": [{"image": "no base64", "question": "a", "answer": "b"}]},
        {"questions": [{"image": base64.b64encode(b"no picture").decode(), "question": "a", "answer": "b"}]},
        {"questions": [{"question": "a", "answer": "b"}]},
        {"questions": 3},
        {"max_new_tokens": None},
    ],
)
def test_a_damaged_probe_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    entry = {"image": base64.b64encode(content.getvalue()).decode(), "question": "a", "answer": "b"}
    whole = {"format_version": 1, "max_new_tokens": 4, "questions": [entry]}
    (tmp_path / PROBE_FILE).write_text(json.dumps(whole))
    assert read_probe(tmp_path) is not None
    (tmp_path / PROBE_FILE).write_text(json.dumps(whole | change))
    with pytest.raises(ArtifactError, match=r"probe\.json") as caught:
        read_probe(tmp_path)
    assert "\n" not in str(caught.value)
