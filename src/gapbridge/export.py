"""`gapbridge export`: a model directory with its card, whole, and proved to answer as the original does.

Shapes: `d` width of a vector, `s` pixels a side.
"""

import gc
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import DESCRIBE, Predictor, open_picture
from gapbridge.report.gallery import INDEX, read_gallery

_CARD = "README.md"
_LEFT_OUT = ("training",)
"""Folders beside the model that are of its making."""
_SHOWN = 8
_DRAWN = 4
_MAX_NEW_TOKENS = 32
_FILE_MODE = 0o644


@dataclass(frozen=True)
class Exported:
    """What was written, and how many questions original and copy answered alike."""

    files: int
    size_bytes: int
    questions: int


@dataclass(frozen=True)
class _Probe:
    question: str
    picture: Image.Image


def export(model: Path, card: Path, folder: Path, report: Path) -> Exported:
    """Write the model directory `model` with `card` as its README.md to the new or empty `folder`.

    Both are asked about pictures of the gallery in `report`, where there is one, and about a few that are drawn
    here. Raises InputError where `folder` cannot take it, ArtifactError when the card is of another model or the copy
    answers anything otherwise; nothing is left then.
    """
    folder = folder.resolve()  # a link to an empty folder stays, and `.` has a name
    _demand_room(folder, model)
    digest = artifacts.model_digest(model)
    text = _card_of(card, digest)
    files = list(_files(model))
    size_bytes = sum(file.stat().st_size for file in files) + len(text)
    free = shutil.disk_usage(_existing(folder)).free
    if size_bytes > free:
        raise InputError(f"{folder}: needs {size_bytes:,} bytes, {free:,} are free; make room")
    probes = _probes(report)
    before = _answers(model, probes)
    try:
        with artifacts.fresh_folder(folder) as copy:
            _copy(model, files, copy)
            artifacts.write_bytes(copy / _CARD, text)
            for (question, said), (_, again) in zip(before, _answers(copy, probes), strict=True):
                if said != again:
                    raise ArtifactError(
                        f"{folder}: asked {question!r} the copy says {again!r}, the original {said!r}; nothing was"
                        " exported"
                    )
            if artifacts.model_digest(copy) != digest:
                raise ArtifactError(f"{folder}: the copy's files differ from those of {model}; nothing was exported")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); nothing was exported") from error
    return Exported(len(files) + 1, size_bytes, len(before))


def _demand_room(folder: Path, model: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name a new folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder")
    if folder.resolve().is_relative_to(model.resolve()):
        raise InputError(f"{folder}: lies inside the model {model}; name a folder elsewhere")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _card_of(card: Path, digest: str) -> bytes:
    try:
        text = card.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{card}: no model card ({error.strerror}); run `dvc repro report`, or use --card"
        ) from error
    if digest.encode() not in text:
        raise ArtifactError(f"{card}: is not the card of this model ({digest[:12]}…); run `dvc repro report`")
    return text


def _files(model: Path) -> Iterator[Path]:
    """What belongs to the model: no hidden files, no records of its training, and not an older card."""
    for file in sorted(model.rglob("*")):
        inner = file.relative_to(model)
        hidden = any(part.startswith(".") for part in inner.parts)
        if file.is_file() and not hidden and inner.parts[0] not in _LEFT_OUT and inner != Path(_CARD):
            yield file


def _copy(model: Path, files: Sequence[Path], copy: Path) -> None:
    for file in tqdm(files, desc="copy", unit="file", dynamic_ncols=True):
        target = copy / file.relative_to(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(_FILE_MODE)


def _probes(report: Path) -> list[_Probe]:
    """Questions about pictures: those that the report shows first, then noise and gradients that any seed repeats."""
    probes = []
    if (report / INDEX).exists():
        shown = [exhibit for exhibit in read_gallery(report)[:_SHOWN] if exhibit.is_shown]
        probes += [_Probe(exhibit.question, open_picture(report / exhibit.picture)) for exhibit in shown]
    questions = list(dict.fromkeys([DESCRIBE, *(probe.question for probe in probes)]))[:_DRAWN]
    for number in range(_DRAWN):
        random = np.random.default_rng(number)
        corners = random.integers(0, 256, (number + 2, number + 2, 3), dtype=np.uint8)
        picture = Image.fromarray(corners).resize((96, 72), Image.Resampling.BICUBIC)
        probes.append(_Probe(questions[number % len(questions)], picture))
    return probes


def _answers(model: Path, probes: Sequence[_Probe]) -> list[tuple[str, str]]:
    """Each question with the raw answer. One model is in memory at a time."""
    predictor = Predictor.load(model, batch_size=len(probes))
    questions = [probe.question for probe in probes]
    vision = predictor.model.config.vision_config
    if vision.architecture is None:  # it reads vectors alone
        rows = np.random.default_rng(0).normal(size=(len(probes), vision.hidden_size))
        visuals = predictor.embedded((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    else:
        visuals = predictor.pictured([probe.picture for probe in probes])
    requests = [Request("the question", text, place, _MAX_NEW_TOKENS) for place, text in enumerate(questions)]
    answers = predictor.answers(requests, visuals, label=f"ask {model.name}")
    del predictor, visuals
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return list(zip(questions, answers, strict=True))
