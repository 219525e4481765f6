"""LLaVA's layout: a JSON list of `{"id", "image"?, "conversations", "group_id"?, "context"?}`.

`conversations` alternates `{"from": "human", "value"}` and `{"from": "gpt", "value"}`; `<image>` marks where the
picture stood and is dropped, since the picture always comes first here.
"""

import json
from collections.abc import Iterator
from typing import Any

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, group_of, identified, optional_words, words
from gapbridge.corpus.records import PICTURED
from gapbridge.errors import InputError

_PLACEHOLDER = "<image>"


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Dialogues with pictures (kind `dialogue`) or without (`language`).

    As pairs, images or texts (`pair`, `image`, `text`) the first answer is the picture's text.
    """
    for number, row in enumerate(_rows(origin), 1):
        place = f"{origin.path} row {number}"
        name = None
        try:
            if not isinstance(row, dict):
                raise BadFieldError("the row is not a JSON object")
            name = identified(row)
            yield _draft(origin, kind, row, name, place)
        except BadFieldError as error:
            yield BadRow(origin.path, place, name, str(error))


def _rows(origin: Origin) -> list[Any]:
    path = origin.file()
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error
    except json.JSONDecodeError as error:
        place = f"{origin.path} line {error.lineno} column {error.colno}"
        raise InputError(f"{place}: not JSON ({error.msg}); it must hold one list of objects") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin.path}: not UTF-8 JSON; it must hold one list of objects") from error
    if not isinstance(rows, list):
        raise InputError(f"{origin.path}: not a JSON list; it must hold one list of objects")
    return rows


def _draft(origin: Origin, kind: str, row: dict[str, Any], name: str, place: str) -> Draft:
    turns = _turns(row, asked=kind in ("dialogue", "language"))
    picture = _picture(origin, kind, row)
    group = group_of(row) or picture or f"{origin.path}#{name}"
    record: dict[str, Any] = {"id": name, "group_id": group, "source": origin.path}
    if kind == "image":
        record["caption"] = turns[0]["answer"] if origin.captions else None
    elif kind in ("text", "pair"):
        record["text"] = turns[0]["answer"]
    else:
        record |= {"context": optional_words(row, "context"), "turns": turns}
    return Draft(place, record, picture)


def _picture(origin: Origin, kind: str, row: dict[str, Any]) -> str | None:
    if kind in PICTURED:
        return origin.picture(words(row, "image"))
    if kind == "language" and row.get("image") is not None:
        raise BadFieldError('"image" stands where only words are expected')
    return None


def _turns(row: dict[str, Any], asked: bool) -> list[dict[str, str]]:
    """Questions with answers; `asked` says that the questions matter and may not be empty."""
    if "conversations" not in row:
        raise BadFieldError('"conversations" is missing')
    spoken = row["conversations"]
    if not isinstance(spoken, list) or not spoken or not all(isinstance(one, dict) for one in spoken):
        raise BadFieldError('"conversations" is not a list of objects')
    if [one.get("from") for one in spoken] != ["human", "gpt"] * (len(spoken) // 2):
        raise BadFieldError('"conversations" does not alternate between human and gpt')
    return [
        {"question": _question(human) if asked else "", "answer": words(gpt, "value")}
        for human, gpt in zip(spoken[::2], spoken[1::2], strict=True)
    ]


def _question(human: dict[str, Any]) -> str:
    return words({"value": words(human, "value").replace(_PLACEHOLDER, "")}, "value")
