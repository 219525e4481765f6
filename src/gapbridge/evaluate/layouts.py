"""What the readers of published benchmarks share: fields with few values, listed options, files of a release."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from gapbridge.corpus import jsonl
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Origin, words
from gapbridge.corpus.parquet import TableRow
from gapbridge.corpus.rows import Embedded, Row
from gapbridge.errors import InputError

OPTION_LETTER = "Answer with the option's letter from the given choices directly."
SHORT_ANSWER = "Answer the question using a single word or phrase."
YES_OR_NO = "Please answer yes or no."
"""What LLaVA's, MMMU's and MME's protocols end their questions with."""

# "A. text" or "A) text" a line; "(A) text (B) text" in one.
_LISTS = (re.compile(r"^\s*([A-Z])[.)][ \t]+(\S.*?)\s*$", re.MULTILINE), re.compile(r"\(([A-Z])\)\s*([^()]+)"))


def embedded(row: TableRow, column: str) -> Embedded:
    """The picture in that column. Raises BadFieldError where the row has none."""
    if column not in row.pictures:
        raise BadFieldError(f'"{column}" holds no picture')
    return row.pictures[column]


def one_of(fields: Mapping[str, Any], key: str, known: Collection[str]) -> str:
    """The text under `key`. Raises BadFieldError when it is none of the `known` ones."""
    found = words(fields, key)
    if found not in known:
        raise BadFieldError(f'"{key}" is {found[:40]!r}, which this benchmark does not know')
    return found


def letter(fields: Mapping[str, Any], key: str, options: int) -> str:
    """The letter under `key` of one of so many options. Raises BadFieldError when it is none of theirs."""
    found = words(fields, key).upper()
    if len(found) != 1 or found not in ascii_uppercase[:options]:
        raise BadFieldError(f'"{key}" is {found[:40]!r}, none of the {options} options')
    return found


def yes_no_label(fields: Mapping[str, Any], key: str) -> str:
    """`yes` or `no`. Raises BadFieldError when the field says neither."""
    found = words(fields, key).lower().rstrip(".")
    if found not in ("yes", "no"):
        raise BadFieldError(f'"{key}" is neither yes nor no')
    return found


def texts(value: object, key: str) -> list[str]:
    """A list of texts, at least two. Raises BadFieldError."""
    found = list(value) if isinstance(value, list | tuple) else []
    if len(found) < 2 or len(found) > len(ascii_uppercase) or not all(isinstance(text, str) for text in found):
        raise BadFieldError(f'"{key}" is no list of options')
    return found


def listed(options: Sequence[str], form: str = "{}. {}") -> str:
    """The options a line each, with their letters."""
    return "\n".join(form.format(*option) for option in zip(ascii_uppercase, options, strict=False))


def listed_in(question: str, options: int) -> list[str]:
    """The texts of so many options that the question lists itself; empty where only the letter is known."""
    found: list[tuple[str, str]] = []
    for form in _LISTS:
        found = found or form.findall(question)
    is_list = len(found) > 1 and "".join(sign for sign, _ in found) == ascii_uppercase[: len(found)]
    known = [text.strip() for _, text in found][:options] if is_list else []
    return known + [""] * (options - len(known))


def json_rows(origin: Origin) -> Iterator[Row | BadRow]:
    """The objects of a JSON Lines file; `name` is the line."""
    for place, number, row in jsonl.lines(origin):
        yield row if isinstance(row, BadRow) else Row(place, f"line-{number:09d}", row)


def released(origin: Origin, files: Sequence[str], images: str = ".") -> list[Origin]:
    """The file that `origin` names, or those of the `files` that are in the folder that it names.

    Pictures of such a folder are in `images` below it, unless `origin` says where; for a single file it must, or a
    change of theirs would go unnoticed. Raises InputError for a folder with none of the files.
    """
    place = origin.place()
    if not place.is_dir():
        return [origin]
    found = [place / name for name in files if (place / name).is_file()]
    if not found:
        raise InputError(
            f"sources.{origin.set_name}.path: {origin.path} holds no {' or '.join(files)}; name another folder"
        )
    below = origin.images or origin.relative(place / images)
    return [replace(origin, path=origin.relative(file), images=below) for file in found]
