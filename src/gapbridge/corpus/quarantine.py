"""Rows that became no record: a table that is written while they come, with what is known about them in short."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

_PIECE_ROWS = 20_000
_SCHEMA = pyarrow.schema([(name, pyarrow.large_string()) for name in ("source", "where", "id", "reason")])


@dataclass(frozen=True)
class BadRow:
    """A row that became no record: its `place` (`captions.jsonl line 1204`), its id if it has one, and why."""

    source: str
    place: str
    id: str | None
    reason: str


class Quarantine:
    """The bad rows of one set: on disk, some thousands at a time, and counted by their reasons."""

    def __init__(self, path: Path) -> None:
        """The table at `path`, with the columns source, where, id, reason, is whole once `close` has ended."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        """The place where each reason stands first."""
        self._held: list[BadRow] = []
        self._writer = pyarrow.parquet.ParquetWriter(path, _SCHEMA, compression="zstd")

    def add(self, row: BadRow) -> None:
        """Take in one row."""
        self.rows += 1
        self.reasons[row.reason] += 1
        self.first.setdefault(row.reason, row.place)
        self._held.append(row)
        if len(self._held) == _PIECE_ROWS:
            self._flush()

    def close(self) -> None:
        """Finish the table."""
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        rows = [asdict(row) for row in self._held]
        columns = [[row["place" if name == "where" else name] for row in rows] for name in _SCHEMA.names]
        self._writer.write_table(pyarrow.table(columns, schema=_SCHEMA))
        self._held = []


def write_quarantine(path: Path, bad: list[BadRow]) -> Quarantine:
    """The table of rows that are at hand."""
    quarantine = Quarantine(path)
    for row in bad:
        quarantine.add(row)
    quarantine.close()
    return quarantine
