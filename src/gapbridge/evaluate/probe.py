"""A few questions with the answers that a model gave where it was evaluated: proof that its package still gives them.

`probe.json` stands beside the model: `format_version`, `max_new_tokens`, and `questions`, each with `image` (a PNG in
base64), `question` and `answer`.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from gapbridge import artifacts
from gapbridge.corpus.pictures import BadPictureError, decode
from gapbridge.errors import ArtifactError
from gapbridge.evaluate.generation import Request

if TYPE_CHECKING:
    from gapbridge.evaluate.predict import Predictor  # brings torch

FORMAT_VERSION = 1
PROBE_FILE = "probe.json"
MAX_NEW_TOKENS = 64
_MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class Probe:
    """Pictures, a question about each, and the answers that are expected."""

    pictures: tuple[Image.Image, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    max_new_tokens: int

    def differing(self, predictor: Predictor) -> list[tuple[str, str, str]]:
        """Question, expected and found answer wherever `predictor` answers otherwise."""
        found = _answers(predictor, self.pictures, self.questions, self.max_new_tokens)
        return [
            (question, expected, answer)
            for question, expected, answer in zip(self.questions, self.answers, found, strict=True)
            if answer != expected
        ]


def write_probe(
    folder: Path,
    predictor: Predictor,
    pictures: Sequence[Image.Image],
    questions: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Path:
    """Ask `predictor` a question about each picture and write `probe.json` in `folder`; returns the file.

    Raises InputError where a question holds a marker of the prompt.
    """
    shown = [picture.convert("RGB") for picture in pictures]
    answers = _answers(predictor, shown, questions, max_new_tokens)
    entries = [
        {"image": base64.b64encode(_png(picture)).decode(), "question": question, "answer": answer}
        for picture, question, answer in zip(shown, questions, answers, strict=True)
    ]
    content = {"format_version": FORMAT_VERSION, "max_new_tokens": max_new_tokens, "questions": entries}
    artifacts.write_json(folder / PROBE_FILE, content)
    return folder / PROBE_FILE


def read_probe(folder: Path) -> Probe | None:
    """The probe that lies in a model's folder; None where there is none. Raises ArtifactError where it is damaged."""
    path = folder / PROBE_FILE
    if not path.exists():
        return None
    content: Any = artifacts.read_json(path)
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ArtifactError(f"{path}: format {content['format_version']} is unknown; register the model again")
        entries = content["questions"]
        pictures = tuple(
            decode(io.BytesIO(base64.b64decode(entry["image"], validate=True)), _MAX_PIXELS) for entry in entries
        )
        questions, answers = (tuple(str(entry[key]) for entry in entries) for key in ("question", "answer"))
        probe = Probe(pictures, questions, answers, int(content["max_new_tokens"]))
    except (KeyError, TypeError, ValueError, binascii.Error, BadPictureError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); register the model again") from error
    if not probe.questions:
        raise ArtifactError(f"{path}: holds no question; register the model again")
    return probe


def _answers(
    predictor: Predictor, pictures: Sequence[Image.Image], questions: Sequence[str], max_new_tokens: int
) -> list[str]:
    requests = [Request("the probe", question, place, max_new_tokens) for place, question in enumerate(questions)]
    return predictor.answers(requests, predictor.pictured(pictures), label=None)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
