"""`gapbridge predict` on the tiny model: order, errors, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from gapbridge.cli import cli
from gapbridge.errors import InputError
from gapbridge.evaluate import answer_file
from gapbridge.evaluate.answer_file import Settings, Tally, predict
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor, ask

from .tiny import save_model

SETTINGS = Settings(batch_size=4, max_new_tokens=6)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers differently about different pictures."""
    folder = tmp_path_factory.mktemp("seeing")
    save_model(folder, seeing=True)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures at two depths, and three files that are none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for n in range(10):
        color = tuple(np.random.default_rng(n).integers(0, 256, 3).tolist())
        Image.new("RGB", (30, 20), color).save(folder / ("deep" if n % 2 else ".") / f"{n}.png")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "4b.png")
    (folder / "4b.png").write_bytes((folder / "4b.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden").write_text("left out")
    (folder / "out.png").symlink_to("/etc/hostname")
    return folder


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_folder_is_answered_in_order_and_what_is_no_picture_says_why(
    photos: Path, model_folder: Path, tmp_path: Path
) -> None:
    tally = predict(model_folder, photos, tmp_path / "out.jsonl", "what color is the circle", SETTINGS)
    lines = read(tmp_path / "out.jsonl")
    assert [line["image"] for line in lines] == [
        "0.png", "2.png", "4.png", "4b.png", "6.png", "8.png", *(f"deep/{n}.png" for n in (1, 3, 5, 7, 9)),
        "notes.txt", "out.png",
    ]  # fmt: skip
    errors = {line["id"]: line["error"] for line in lines if "error" in line}
    assert errors == {
        "4b.png": "the picture is truncated or damaged",
        "notes.txt": "not named like a picture",
        "out.png": "the path leaves its root",
    }
    assert tally == Tally(answered=10, failed=3, kept=0, first_error=errors["4b.png"])
    answers = {line["id"]: line["answer"] for line in lines if "answer" in line}
    assert len(set(answers.values())) > 1
    predictor = Predictor.load(model_folder)
    picture = Image.open(photos / "deep/3.png")
    alone = predictor.answers(
        [Request("it", "what color is the circle", 0, SETTINGS.max_new_tokens)], predictor.pictured([picture]), None
    )
    assert answers["deep/3.png"] == alone[0]


def test_a_list_may_bring_ids_and_questions_and_its_bad_lines_are_told(
    photos: Path, model_folder: Path, tmp_path: Path
) -> None:
    rows = [
        '{"id": "a", "image": "0.png", "question": "where is it"}',
        '{"image": "deep/1.png"}',
        "",
        '{"id": "a", "image": "2.png"}',
        '{"id": "b"}',
        "not json",
        '{"id": "c", "image": "../elsewhere.png"}',
        '{"id": "d", "image": "gone.png"}',
        '{"id": "e", "image": "2.png", "question": "what is <image>"}',
        '{"id": 7, "image": "2.png"}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out.jsonl"
    tally = predict(model_folder, tmp_path / "list.jsonl", out, "describe the picture", SETTINGS, photos)
    lines = read(out)
    assert [line["id"] for line in lines] == ["a", "line-000000002", "a", "b", "line-000000006", "c", "d", "e", "7"]
    assert [line["question"] for line in lines[:2]] == ["where is it", "describe the picture"]
    assert [line.get("error", "") for line in lines] == [
        "", "", "the id was used before", '"image" is missing', "the line does not parse as JSON",
        "the path leaves its root", "No such file or directory",
        "the question: its text holds the marker '<image>'; remove it", "",
    ]  # fmt: skip
    assert (tally.answered, tally.failed) == (3, 6)


def test_a_file_of_pope_is_asked_its_own_questions(photos: Path, model_folder: Path, tmp_path: Path) -> None:
    rows = [
        '{"question_id": 7, "image": "0.png", "text": "is there a cat", "label": "yes"}',
        '{"question_id": 8, "image": "2.png", "text": "", "label": "no"}',
    ]
    (tmp_path / "pope.jsonl").write_text("\n".join(rows))
    predict(model_folder, tmp_path / "pope.jsonl", tmp_path / "out.jsonl", "describe the picture", SETTINGS, photos)
    first, second = read(tmp_path / "out.jsonl")
    assert (first["id"], first["question"], "answer" in first) == ("7", "is there a cat", True)
    assert (second["id"], second["error"]) == ("8", '"text" is empty')


def test_it_goes_on_where_it_was_stopped_and_asks_nothing_twice(
    photos: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    predict(model_folder, photos, whole, "where is it", SETTINGS)
    lines = whole.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    opened: list[str] = []
    monkeypatch.setattr(
        answer_file,
        "open_picture",
        lambda path, real=answer_file.open_picture: (opened.append(path.name), real(path))[1],
    )
    tally = predict(model_folder, photos, out, "where is it", SETTINGS)
    assert out.read_bytes() == whole.read_bytes()
    assert tally.kept == 5 and sorted(opened) == ["1.png", "3.png", "5.png", "7.png", "8.png", "9.png"]
    monkeypatch.setattr(Predictor, "load", None)
    assert predict(model_folder, photos, out, "where is it", SETTINGS).kept == 13


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(photos: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["predict", str(photos), "--out", str(out), "--model", str(model_folder), "--batch-size", "1"]
    slow = (
        "import time\nfrom gapbridge.evaluate.predict import Predictor\nreal = Predictor.answers\n"
        "def answers(*given, **named):\n    time.sleep(0.2)\n    return real(*given, **named)\n"
        f"Predictor.answers = answers\nfrom gapbridge.cli import main\nmain({arguments!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline and (not out.exists() or out.stat().st_size < 400):
        time.sleep(0.01)
    with pytest.raises(InputError, match="another process writes it"):
        predict(model_folder, photos, out, "describe the picture", Settings(1, 64))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    before = out.read_bytes()
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and "10 answers, 3 errors" in done.stdout and "of them before" in done.stdout
    assert out.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert len(read(out)) == 13


def test_another_input_model_or_length_is_refused_and_the_file_stays(
    photos: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    predict(model_folder, photos, out, "where is it", SETTINGS)
    before = out.read_bytes()
    other = tmp_path / "other"
    save_model(other, fingerprint="another")
    with pytest.raises(InputError, match="line 1: another model answered it"):
        predict(other, photos, out, "where is it", SETTINGS)
    with pytest.raises(InputError, match="another --max-new-tokens"):
        predict(model_folder, photos, out, "where is it", Settings(4, 7))
    with pytest.raises(InputError, match=r"line 1: is not about 0\.png"):
        predict(model_folder, photos, out, "describe the picture", SETTINGS)
    (photos / "9.png").write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"line 7: is not about 9\.png"):
        predict(model_folder, photos, out, "where is it", SETTINGS)
    with pytest.raises(InputError, match="holds 13 lines, the input 5"):
        predict(model_folder, photos / "deep", out, "where is it", SETTINGS)
    assert out.read_bytes() == before


def test_nothing_answered_is_an_error_and_so_is_nothing_to_answer(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    out = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="holds nothing to answer"):
        predict(model_folder, tmp_path / "odd", out, "where is it", SETTINGS)
    assert not out.exists()
    (tmp_path / "odd/a.png").write_text("no picture")
    done = CliRunner().invoke(
        cli, ["predict", str(tmp_path / "odd"), "--out", str(out), "--model", str(model_folder)], standalone_mode=False
    )
    assert isinstance(done.exception, InputError)
    assert str(done.exception).endswith("1 errors; the first: not a picture in a known format")
    assert len(read(out)) == 1


def test_the_answer_is_that_of_ask(photos: Path, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"image": "photos/0.png", "question": "where is it"}\n')
    predict(model_folder, tmp_path / "one.jsonl", tmp_path / "out.jsonl", "unused", Settings(1, 64))
    assert read(tmp_path / "out.jsonl")[0]["answer"] == ask(model_folder, photos / "0.png", "where is it")
