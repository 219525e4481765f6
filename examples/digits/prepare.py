"""Real pictures for gapbridge: scikit-learn's 1,797 scans of handwritten digits as a user's files.

Writes data/digits/ in the current folder: pictures, and the files that profiles/digits.yaml names. The sets are
disjoint by scan; only the encoder's pairs show the scans of the alignment's pictures once more.
"""

import json
import logging
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from words import DESCRIBE, EVEN, STROKES, WHICH, WIDTHS, Digit, all_descriptions, describe, presence, questions

from gapbridge.artifacts import fresh_folder

logger = logging.getLogger(__name__)

SEED = 0
SIDE = 64
"""Width and height of a picture in pixels; the scans have 8 × 8."""
INSTRUCT_SCANS, PROBE_SCANS, BENCHMARK_SCANS = 350, 100, 400
PAIRS_PER_SCAN, DIALOGUES_PER_SCAN, DIALOGUES = 4, 4, 12_000


def main() -> None:
    """Write everything, whole or not at all."""
    target = Path("data/digits")
    with fresh_folder(target) as folder:
        write(folder)
    logger.info("%s: pictures and sets written; next: gapbridge profile digits", target)


def write(folder: Path) -> None:
    """Write pictures and sets into `folder`; the same bytes every time."""
    random = np.random.default_rng(SEED)
    scans = load_digits()
    digits = observed(scans.images, scans.target)
    order = random.permutation(len(digits))
    ends = np.cumsum([INSTRUCT_SCANS, PROBE_SCANS, BENCHMARK_SCANS])
    instruct, probe, benchmark, train = np.split(order, ends)
    for name, numbers in (("train", train), ("instruct", instruct), ("probe", probe), ("benchmark", benchmark)):
        _write_pictures(folder / name, numbers, scans.images)
    _write_texts(folder / "texts.jsonl")
    # Tiled, not repeated: rows beside each other, and so most of a batch, show different scans.
    _write_json(folder / "encoder.json", _pairs(digits, np.tile(train, PAIRS_PER_SCAN), random))
    _write_json(folder / "probe.json", _pairs(digits, probe, random))
    _write_json(folder / "llm.json", _dialogues_without_pictures(random))
    _write_json(folder / "instruct.json", _dialogues(digits, np.tile(instruct, DIALOGUES_PER_SCAN), random))
    _write_lines(folder / "benchmark.jsonl", _benchmark(digits, benchmark, random))


def observed(images: np.ndarray, values: np.ndarray) -> list[Digit]:
    """Value, stroke and width of every scan; `images` is (n, 8, 8) ink of 0–16, thirds of the scans get each word."""
    ink = images.sum(axis=(1, 2))
    columns = images.sum(axis=1) / ink[:, None]
    places = np.arange(8)
    spread = columns @ places**2 - (columns @ places) ** 2
    strokes, widths = (np.digitize(measure, np.quantile(measure, (1 / 3, 2 / 3))) for measure in (ink, spread))
    return [Digit(int(v), STROKES[s], WIDTHS[w]) for v, s, w in zip(values, strokes, widths, strict=True)]


def _write_pictures(folder: Path, numbers: np.ndarray, images: np.ndarray) -> None:
    folder.mkdir()
    for number in numbers:
        paper = Image.fromarray((255 - images[number] * 255 / 16).astype(np.uint8))
        paper.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")


def _write_texts(path: Path) -> None:
    _write_lines(path, ({"id": f"text-{n:04d}", "text": text} for n, text in enumerate(all_descriptions())))


def _pairs(digits: list[Digit], numbers: np.ndarray, random: np.random.Generator) -> list[dict[str, Any]]:
    return [
        _row(f"pair-{n:05d}", [(DESCRIBE, describe(digits[number], random))], number)
        for n, number in enumerate(numbers)
    ]


def _dialogues(digits: list[Digit], numbers: np.ndarray, random: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for n, number in enumerate(numbers):
        sentence = describe(digits[number], random)
        turns = questions(digits[number], sentence, random)
        rows.append({**_row(f"dialogue-{n:05d}", turns, number), "context": sentence})
    return rows


def _dialogues_without_pictures(random: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for n in range(DIALOGUES):
        digit = Digit(int(random.integers(10)), STROKES[random.integers(3)], WIDTHS[random.integers(3)])
        sentence = describe(digit, random)
        rows.append({**_row(f"words-{n:05d}", questions(digit, sentence, random)), "context": sentence})
    return rows


def _row(name: str, turns: list[tuple[str, str]], number: int | None = None) -> dict[str, Any]:
    """One LLaVA row; with a picture, its mark stands before the first question."""
    mark = "" if number is None else "<image>\n"
    spoken = []
    for n, (question, answer) in enumerate(turns):
        spoken.append({"from": "human", "value": question if n else mark + question})
        spoken.append({"from": "gpt", "value": answer})
    image = {} if number is None else {"image": f"{number:04d}.png"}
    return {"id": name, **image, "conversations": spoken}


def _benchmark(digits: list[Digit], numbers: np.ndarray, random: np.random.Generator) -> Iterable[dict[str, Any]]:
    ids = count()
    for n, number in enumerate(numbers):
        digit = digits[number]
        asked = [
            ("digit", None, WHICH, digit.name),
            ("yes_no", "even", EVEN, "no" if digit.value % 2 else "yes"),
            ("yes_no", "presence", *presence(digit, n % 2 == 0, random)),
        ]
        for benchmark, subset, question, answer in asked:
            row = {"question_id": next(ids), "image": f"{number:04d}.png", "text": question, "label": answer}
            yield {**row, "benchmark": benchmark, "subset": subset}


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
