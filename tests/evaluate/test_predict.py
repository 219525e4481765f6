"""Batched answers: what batching, padding, order and repetition must not change."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import DESCRIBE, Predictor, ask, describe, open_picture

from .tiny import QUESTIONS


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, batch_size=3)


def _asked(questions: list[str], places: list[int]) -> list[Request]:
    return [Request("the question", question, place, 6) for question, place in zip(questions, places, strict=True)]


def _cross(count: int) -> tuple[list[str], list[int]]:
    return [question for question in QUESTIONS for _ in range(count)], list(range(count)) * len(QUESTIONS)


def test_batches_answer_as_single_questions_do_and_in_order(predictor: Predictor, vectors: np.ndarray) -> None:
    questions, places = _cross(len(vectors))
    together = predictor.answers(_asked(questions, places), predictor.embedded(vectors), "test")
    single = [
        predictor.answers(_asked([question], [0]), predictor.embedded(vectors[place : place + 1]), "test")[0]
        for question, place in zip(questions, places, strict=True)
    ]
    assert together == single
    assert len(set(together)) > len(QUESTIONS)  # the pictures matter, or the comparison says nothing


def test_an_answer_is_the_models_own_greedy_one(predictor: Predictor, vectors: np.ndarray) -> None:
    ids = torch.tensor([predictor.prompt(QUESTIONS[0])])
    generated = predictor.model.generate(
        input_ids=ids, visual_embeds=torch.from_numpy(vectors[:1]), do_sample=False, max_new_tokens=6
    )
    expected = predictor.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert predictor.answers(_asked([QUESTIONS[0]], [0]), predictor.embedded(vectors), "test") == [expected]


def test_the_same_question_about_the_same_picture_is_asked_once(predictor: Predictor, vectors: np.ndarray) -> None:
    asked: list[int] = []

    def visuals(places: list[int]) -> dict[str, torch.Tensor]:
        asked.extend(places)
        return predictor.embedded(vectors)(places)

    answers = predictor.answers(_asked([QUESTIONS[0]] * 5, [2, 1, 2, 2, 1]), visuals, "test")
    assert sorted(asked) == [1, 2]
    assert answers[0] == answers[2] == answers[3]
    assert answers[1] == answers[4]


def test_ask_and_describe_read_picture_files(model_folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(path)
    captions = describe(model_folder, paths)
    assert len(captions) == 3
    assert captions[1] == ask(model_folder, paths[1], DESCRIBE)


def test_a_bad_picture_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    line = tmp_path / "line.png"
    Image.new("RGB", (1, 400_000)).save(line)
    for path, reason in ((text, "not a picture"), (tmp_path / "gone.png", "No such file"), (line, "50 times the")):
        with pytest.raises(InputError, match=reason) as caught:
            open_picture(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_half_a_model_and_one_of_another_kind_are_one_short_line(model_folder: Path, tmp_path: Path) -> None:
    half = shutil.copytree(model_folder, tmp_path / "half")
    (weights,) = half.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    other = shutil.copytree(model_folder, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "lfm2"}')
    for folder in (half, other):
        with pytest.raises(ArtifactError, match="cannot be opened") as caught:
            Predictor.load(folder)
        assert len(str(caught.value).replace(str(folder), "")) < 300


def test_an_empty_question_and_a_folder_without_model_are_refused(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture)
    with pytest.raises(InputError, match="question is empty"):
        ask(tmp_path, picture, "  ")
    with pytest.raises(ArtifactError, match="not a model directory"):
        ask(tmp_path, picture, "what is it")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="cannot be opened"):
        ask(tmp_path, picture, "what is it")
