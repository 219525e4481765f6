"""Questions of published benchmarks: one record of kind `question`, whatever layout it was read from."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin
from gapbridge.corpus.parquet import TableRow
from gapbridge.corpus.rows import Embedded, Row

logger = logging.getLogger(__name__)

AnyRow = TypeVar("AnyRow", Row, TableRow)


def questions(
    origin: Origin, rows: Iterable[AnyRow | BadRow], make: Callable[[AnyRow], Draft | None]
) -> Iterator[Draft | BadRow]:
    """What `make` makes of every row: a draft, or None for a question that the protocol leaves out.

    A row for which it raises BadFieldError is a bad one; how many were left out is logged.
    """
    left_out = 0
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            draft = make(row)
        except BadFieldError as error:
            yield BadRow(origin.path, row.place, row.name, str(error))
            continue
        left_out += draft is None
        if draft is not None:
            yield draft
    if left_out:
        logger.info("%s: %d questions left out, as the protocol says", origin.path, left_out)


def question(
    origin: Origin,
    place: str,
    name: str,
    *,
    benchmark: str,
    text: str,
    answer: str,
    picture: Embedded | str,
    group: str | None = None,
    subset: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Draft:
    """A question that is asked exactly as `text` says it, and its right `answer`.

    `picture` is embedded in a table (`parquet.rows`), or a file: what `origin.picture` gave. `group` names the scene or
    source picture, where several questions share one; else each picture is its own. `detail` is what the protocol needs
    besides and JSON can hold. Raises ValueError for NaN.
    """
    locator, content = picture if isinstance(picture, Embedded) else (f"root:{picture}", None)
    record = {
        "id": name,
        "group_id": group or locator.partition(":")[2],
        "source": origin.path,
        "benchmark": benchmark,
        "question": text,
        "answer": answer,
        "subset": subset,
        "novel": False,
        "detail": json.dumps(dict(detail or {}), sort_keys=True, ensure_ascii=False, allow_nan=False),
    }
    return Draft(place, record, locator, content)
