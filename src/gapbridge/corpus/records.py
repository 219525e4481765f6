"""What a record is: one table schema a kind, checked whenever a manifest is written or read.

Every record has an `id` (unique in its set), a `group_id` (what must not cross a split: a scene, a source
picture) and the `source` that it came from. Pictures stand in a table as locators (`corpus.pictures`).
"""

from typing import Annotated, Any

import pandera.polars as pandera
import polars
from pandera.polars import Field
from polars import DataFrame

from gapbridge.errors import ArtifactError

TURNS = polars.List(polars.Struct({"question": polars.String, "answer": polars.String}))
_LOCATOR = r"^((own|tar):[^#]+#.+|rows:[^#]+#.+#\d+|root:.+)$"
_SHA256 = r"^[0-9a-f]{64}$"
_VECTOR = r"^.+#\d+$"


class Record(pandera.DataFrameModel):
    """What all records share."""

    id: str = Field(unique=True, str_length={"min_value": 1})
    group_id: str = Field(str_length={"min_value": 1})
    source: str = Field(str_length={"min_value": 1})

    class Config:
        """Columns exactly as declared."""

        strict = True


class Text(Record):
    """A text without a picture."""

    text: str = Field(str_length={"min_value": 1})
    text_vector: str = Field(nullable=True, str_matches=_VECTOR)
    """Where its vector lies, when that was brought along."""


class Pictured(Record):
    """What all records with a picture share: locator, digest of its file, its look, its size in pixels as shown.

    Where the vector was brought along without the picture, image, look and size are null, and the digest is the
    vector's.
    """

    image: str = Field(nullable=True, str_matches=_LOCATOR)
    image_vector: str = Field(nullable=True, str_matches=_VECTOR)
    """Where its vector lies, when that was brought along."""
    sha256: str = Field(str_matches=_SHA256)
    look: str = Field(nullable=True)
    """Null too for pictures of the world, whose scenes are apart by construction."""
    width: int = Field(nullable=True, gt=0)
    height: int = Field(nullable=True, gt=0)


class Image(Pictured):
    """A picture; `caption` is null unless the source was told to keep it for the paired control."""

    caption: str = Field(nullable=True)


class Pair(Pictured):
    """A picture with its text; `objects` says how many things the picture holds, where that is known."""

    text: str = Field(str_length={"min_value": 1})
    text_vector: str = Field(nullable=True, str_matches=_VECTOR)
    objects: int = Field(nullable=True, gt=0)


class Language(Record):
    """Words only: a plain `text` with no turns, or turns about `context`, which stands in a picture's place."""

    text: str = Field(nullable=True)
    context: str = Field(nullable=True)
    turns: Annotated[polars.List, TURNS.inner]


class Dialogue(Pictured):
    """Turns about a picture; `context` is a caption of it, where one is known, and `text_vector` the caption's."""

    context: str = Field(nullable=True)
    text_vector: str = Field(nullable=True, str_matches=_VECTOR)
    turns: Annotated[polars.List, TURNS.inner]


class Question(Pictured):
    """One question of a benchmark; `novel` marks attribute combinations that training never saw."""

    benchmark: str = Field(str_length={"min_value": 1})
    question: str = Field(str_length={"min_value": 1})
    answer: str = Field(str_length={"min_value": 1})
    subset: str = Field(nullable=True)
    novel: bool
    detail: str = Field(nullable=True)
    """What its benchmark's protocol needs besides (choices, category), as JSON; null for `pope` and the world."""


SCHEMAS: dict[str, type[Record]] = {
    "text": Text,
    "image": Image,
    "pair": Pair,
    "language": Language,
    "dialogue": Dialogue,
    "question": Question,
}

SETS: dict[str, str] = {
    "texts": "text",
    "images": "image",
    "encoder": "pair",
    "llm": "language",
    "instruct": "dialogue",
    "probe": "pair",
    "benchmark": "question",
}
"""The kind of record that each set holds."""

PICTURED = frozenset(kind for kind, schema in SCHEMAS.items() if issubclass(schema, Pictured))
"""The kinds whose records have a picture."""


def columns(kind: str) -> dict[str, polars.DataType]:
    """Column names and polars types of the records of `kind`, in order."""
    return {name: column.dtype.type for name, column in SCHEMAS[kind].to_schema().columns.items()}


def table(kind: str, records: list[dict[str, Any]], sort: bool = True) -> DataFrame:
    """`records` as a table, sorted by id or in their order; keys that a record lacks become null.

    Raises ArtifactError when the records do not fit the schema of `kind`.
    """
    frame = DataFrame(records, schema=columns(kind), orient="row")
    return checked(kind, frame.sort("id") if sort else frame, kind)


def checked(kind: str, frame: DataFrame, place: object) -> DataFrame:
    """`frame` itself, once it fits the schema of `kind`.

    Raises ArtifactError naming `place` and the first failure.
    """
    try:
        return SCHEMAS[kind].validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        first = error.failure_cases.row(0, named=True)
        what = f"column {first['column']}, check {first['check']}, value {first['failure_case']!r}"
        raise ArtifactError(f"{place}: not records of kind {kind} ({what}); run `gapbridge ingest` again") from error
