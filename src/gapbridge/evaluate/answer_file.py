"""`gapbridge predict`: every picture of a folder, or every line of a list, answered into one JSON Lines file.

A line is `{"id", "image", "question", "answer"}` with `model` and `max_new_tokens`, which say who answered, or has
`error` in place of `answer`. Lines come in the order of the input; a file that was left unfinished is gone on with.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from tqdm import tqdm

from gapbridge import artifacts
from gapbridge.corpus import folder, jsonl
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Origin, identified, words
from gapbridge.errors import InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor, open_picture

_DECODERS = 4
# Ours first, then those of POPE's files.
_ID_FIELDS = ("id", "question_id")
_QUESTION_FIELDS = ("question", "text")


@dataclass(frozen=True)
class Asked:
    """One question about one picture file, or why there is none (`error`)."""

    id: str
    image: str | None
    """As the input names it."""
    path: Path | None
    question: str
    error: str | None = None


@dataclass(frozen=True)
class Tally:
    """What stands in the file now: lines with an answer, lines with an error, and how many were there before."""

    answered: int
    failed: int
    kept: int
    first_error: str | None


@dataclass(frozen=True)
class Settings:
    """How answers are asked for. Both numbers may decide a word of an answer, the second is kept in each line."""

    batch_size: int
    max_new_tokens: int


def predict(
    model: Path, source: Path, out: Path, question: str, settings: Settings, images: Path | None = None
) -> Tally:
    """Append to `out` a line for each picture of `source` that has none yet.

    `images` is the folder that a list's pictures are named in; by default the list's own. Raises InputError for an
    input that cannot be read as a whole, and for an `out` of another input, model or length of answers;
    ArtifactError for a folder that is no model.
    """
    asked = read_input(source, images, question)
    signature = {"model": artifacts.model_digest(model), "max_new_tokens": settings.max_new_tokens}
    with _held(out) as handle:
        lines = _lines_there(handle, out)
        _demand_same_run(out, lines, asked, signature)
        kept, failures = len(lines), [line["error"] for line in lines if "error" in line]
        if kept < len(asked):
            predictor = Predictor.load(model, settings.batch_size)
            if predictor.model.config.vision_config.architecture is None:
                raise InputError(
                    f"{model}: has no image tower and reads vectors alone; give a model that sees pictures"
                )
            for line in tqdm(
                _answers(predictor, asked, kept, handle, signature),
                desc="predict", unit="picture", initial=kept, total=len(asked), dynamic_ncols=True,
            ):  # fmt: skip
                failures += [line["error"]] if "error" in line else []
    return Tally(len(asked) - len(failures), len(failures), kept, failures[0] if failures else None)


def read_input(source: Path, images: Path | None, question: str) -> list[Asked]:
    """What is to be asked, in order: the pictures of a folder by name, or the lines of a JSON Lines list.

    A line is `{"id"?, "image", "question"?}`, or as POPE has it `{"question_id"?, "image", "text"?}`; `question` stands
    in where it has none. Raises InputError when the input is missing or empty.
    """
    if not question.strip():
        raise InputError("--question: is empty; ask something about the picture")
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder; name a folder of pictures or a JSON Lines file")
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: there is no such folder")
    asked = list(_of_folder(source, question) if source.is_dir() else _of_list(source, images, question))
    if not asked:
        raise InputError(f"{source}: holds nothing to answer; it needs pictures, or lines with an image each")
    return asked


def _of_folder(source: Path, question: str) -> Iterator[Asked]:
    root = source.resolve()
    for row in folder.read(Origin("images", root, "."), "image"):
        if isinstance(row, BadRow):
            yield Asked(str(row.id), row.id, None, question, row.reason)
        else:
            name, locator = row.record["id"], str(row.picture)
            yield Asked(name, name, root / locator.removeprefix("root:"), question)


def _of_list(source: Path, images: Path | None, question: str) -> Iterator[Asked]:
    named_in = Origin("images", (images or source.parent).resolve(), ".", images=".")
    seen: set[str] = set()
    for _, number, row in jsonl.lines(Origin("images", source.parent.resolve(), source.name)):
        name = f"line-{number:09d}"
        if isinstance(row, BadRow):
            yield Asked(name, None, None, question, row.reason)
            continue
        shown, own_question = None, question
        try:
            own_id = _first_of(row, _ID_FIELDS)
            name = identified(row, own_id) if own_id else name
            shown, asks = words(row, "image"), _first_of(row, _QUESTION_FIELDS)
            own_question = words(row, asks) if asks else question
            if name in seen:
                raise BadFieldError("the id was used before")
            yield Asked(name, shown, named_in.root / named_in.picture(shown), own_question)
        except BadFieldError as error:
            yield Asked(name, shown, None, own_question, str(error))
        seen.add(name)


def _first_of(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


@contextmanager
def _held(out: Path) -> Iterator[BinaryIO]:
    """`out` open for reading and writing, by this process alone."""
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out}: must name a file in a folder that is there")
    try:
        handle = out.open("a+b")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another file") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"--out {out}: another process writes it; wait, or name another file") from error
        yield handle


def _lines_there(handle: BinaryIO, out: Path) -> list[dict[str, Any]]:
    """The whole lines of an unfinished file; what a killed run left of a line is cut off."""
    handle.seek(0)
    lines, end = [], 0
    for number, raw in enumerate(handle, 1):
        if not raw.endswith(b"\n"):
            break
        try:
            line = json.loads(raw)
        except ValueError as error:
            raise InputError(f"{out} line {number}: not JSON; name another --out, or delete it") from error
        if not isinstance(line, dict):
            raise InputError(f"{out} line {number}: no answer of `gapbridge predict`; name another --out")
        lines.append(line)
        end += len(raw)
    handle.truncate(end)
    return lines


def _demand_same_run(
    out: Path, lines: Sequence[dict[str, Any]], asked: Sequence[Asked], signature: dict[str, Any]
) -> None:
    if len(lines) > len(asked):
        raise InputError(f"{out}: holds {len(lines)} lines, the input {len(asked)}; name another --out")
    for number, (line, one) in enumerate(zip(lines, asked, strict=False), 1):
        if {name: line.get(name) for name in signature} != signature:
            raise InputError(
                f"{out} line {number}: another model answered it, or with another --max-new-tokens; name another --out"
            )
        if line != _line(one, line, signature):
            raise InputError(f"{out} line {number}: is not about {one.id}, which the input has there; name another")


def _line(one: Asked, said: dict[str, str], signature: dict[str, Any]) -> dict[str, Any]:
    """`said` holds `answer` or `error`."""
    result: dict[str, str] = {name: said[name] for name in ("answer", "error") if name in said}
    return {"id": one.id, "image": one.image, "question": one.question, **result, **signature}


def _answers(
    predictor: Predictor, asked: Sequence[Asked], first: int, handle: BinaryIO, signature: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The lines from `first` on, each after it is written.

    Batches begin where those of an undisturbed run do, since kernels may round otherwise in another company.
    """
    size = predictor.batch_size
    with ThreadPoolExecutor(_DECODERS) as pool:
        while first < len(asked):
            batch = asked[first : (first // size + 1) * size]
            found = list(pool.map(_look, batch))
            pictures = [_refused(predictor, one) or picture for one, picture in zip(batch, found, strict=True)]
            readable = [one for one, picture in zip(batch, pictures, strict=True) if isinstance(picture, Image.Image)]
            shown = [picture for picture in pictures if isinstance(picture, Image.Image)]
            raws = iter(_ask(predictor, readable, shown, signature["max_new_tokens"]))
            said = [{"error": one} if isinstance(one, str) else {"answer": next(raws)} for one in pictures]
            lines = [_line(one, words, signature) for one, words in zip(batch, said, strict=True)]
            handle.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            handle.flush()
            yield from lines
            first += len(batch)


def _look(one: Asked) -> Image.Image | str:
    """The picture, or why there is none to ask about."""
    if one.path is None:
        return one.error or "no picture"
    try:
        return open_picture(one.path)
    except InputError as error:
        return str(error).removeprefix(f"{one.path}: ").partition(";")[0]


def _refused(predictor: Predictor, one: Asked) -> str | None:
    """Why the model cannot be asked that; None when it can."""
    try:
        predictor.prompt(one.question)
    except InputError as error:
        return str(error)
    return None


def _ask(
    predictor: Predictor, asked: Sequence[Asked], pictures: Sequence[Image.Image], max_new_tokens: int
) -> list[str]:
    requests = [Request(one.id, one.question, place, max_new_tokens) for place, one in enumerate(asked)]
    return predictor.answers(requests, predictor.pictured(pictures), label=None) if requests else []
