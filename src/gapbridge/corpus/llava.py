"""LLaVA's layout, which Bunny and InternVL share: `{"id", "image"?, "conversations", "group_id"?, "context"?}`,
as a JSON list or as JSON Lines.

`conversations` alternates `{"from": "human", "value"}` and `{"from": "gpt", "value"}`; `<image>` marks where the
picture stood and is dropped, since the picture always comes first here.
"""

from collections.abc import Iterator
from typing import Any

from gapbridge.corpus import jsonl
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, group_of, identified, optional_words, words
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.stream import first_sign, items
from gapbridge.errors import InputError

_PLACEHOLDER = "<image>"


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Dialogues with pictures (kind `dialogue`) or without (`language`).

    As pairs, images or texts (`pair`, `image`, `text`) the first answer is the picture's text.
    """
    for place, row in _rows(origin):
        name = None
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            if not isinstance(row, dict):
                raise BadFieldError("the row is not a JSON object")
            name = identified(row)
            yield _draft(origin, kind, row, name, place)
        except BadFieldError as error:
            yield BadRow(origin.path, place, name, str(error))


def _rows(origin: Origin) -> Iterator[tuple[str, Any]]:
    """Place and content of every row; a file whose first sign is no bracket is taken for JSON Lines."""
    if first_sign(origin) == b"{":
        yield from ((place, row) for place, _, row in jsonl.lines(origin))
        return
    if first_sign(origin) != b"[":
        raise InputError(f"{origin.path}: neither a JSON list nor JSON Lines; it must hold one list of objects")
    for number, row in enumerate(items(origin, "item"), 1):
        yield f"{origin.path} row {number}", row


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
    return Draft(place, record, picture and f"root:{picture}")


def _picture(origin: Origin, kind: str, row: dict[str, Any]) -> str | None:
    if isinstance(row.get("image"), list) and len(row["image"]) > 1:
        raise BadFieldError('"image" names several pictures; one a row is what the model takes')
    if kind in PICTURED:
        return origin.picture(words(row, "image"))
    if kind == "language" and row.get("image") is not None:
        raise BadFieldError('"image" stands where only words are expected')
    spoken = any(_PLACEHOLDER in str(one.get("value")) for one in row["conversations"])
    if kind == "language" and spoken and row.get("context") is None:
        raise BadFieldError('"conversations" speaks of a picture, and no "context" stands in its place')
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
    if sum(str(one.get("value")).count(_PLACEHOLDER) for one in spoken) > 1:
        raise BadFieldError('"conversations" speaks of several pictures; one a row is what the model takes')
    return [
        {"question": _question(human) if asked else "", "answer": words(gpt, "value")}
        for human, gpt in zip(spoken[::2], spoken[1::2], strict=True)
    ]


def _question(human: dict[str, Any]) -> str:
    return words({"value": words(human, "value").replace(_PLACEHOLDER, "")}, "value")
