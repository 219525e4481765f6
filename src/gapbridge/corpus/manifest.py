"""One folder a set: `manifest.parquet` (good records), `quarantine.parquet` (bad rows), `ingest.json` (figures)."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet
from polars import DataFrame

from gapbridge import artifacts
from gapbridge.corpus.quarantine import BadRow as BadRow  # readers take it from here
from gapbridge.corpus.quarantine import Quarantine
from gapbridge.corpus.records import SCHEMAS, checked, table
from gapbridge.errors import ArtifactError

FORMAT_VERSION = 1
PIECE_ROWS = 20_000
"""So many records are in memory at once."""


class ManifestWriter:
    """Gathers one set in pieces on disk, since it may be larger than memory, and sorts its records by id."""

    def __init__(self, folder: Path, kind: str) -> None:
        """`folder` is made where it is missing; its pieces are gone when `finish` has ended."""
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True, exist_ok=True)
        self.bad = Quarantine(folder / "quarantine.parquet")
        self._held: list[dict[str, Any]] = []
        self._pieces: list[Path] = []
        self.ids: list[str] = []
        """Of all records so far, in the order that they came."""

    def add(self, record: dict[str, Any]) -> None:
        """Take in one record. Raises ArtifactError when a piece does not fit the schema of the kind."""
        self._held.append(record)
        self.ids.append(record["id"])
        if len(self._held) == PIECE_ROWS:
            self._flush()

    def finish(self, kept: np.ndarray | None = None, about: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the three files of the set and return the content of `ingest.json`, which says `about` too.

        `kept` (n,) says which records stay, in the order that they came; all where it is not given.
        """
        self._flush()
        self.bad.close()
        path = self.folder / "manifest.parquet"
        groups = self._write_sorted(path, np.ones(len(self.ids), dtype=bool) if kept is None else kept)
        for piece in self._pieces:
            piece.unlink()
        summary = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "rows": len(self.ids) if kept is None else int(kept.sum()),
            "groups": groups,
            "quarantined": self.bad.rows,
            "reasons": dict(self.bad.reasons),
            "digest": artifacts.file_digest(path),
            **(about or {}),
        }
        artifacts.write_json(self.folder / "ingest.json", summary)
        return summary

    def _flush(self) -> None:
        if self._held or not self._pieces:
            piece = self.folder / f".piece-{len(self._pieces):05d}.parquet"
            table(self.kind, self._held, sort=False).write_parquet(piece)
            self._pieces.append(piece)
            self._held = []

    def _write_sorted(self, path: Path, kept: np.ndarray) -> int:
        """The kept records in the order of their ids, PIECE_ROWS at a time; returns how many groups they have."""
        order = polars.Series(self.ids, dtype=polars.String).arg_sort().to_numpy()
        order = order[kept[order]]
        groups: set[str] = set()
        schema = polars.read_parquet(self._pieces[0], n_rows=0).to_arrow().schema
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, max(1, len(order)), PIECE_ROWS):
                part = self._at(order[start : start + PIECE_ROWS])
                groups.update(part["group_id"])
                writer.write_table(part.to_arrow().cast(schema))
        return len(groups)

    def _at(self, places: np.ndarray) -> DataFrame:
        """The records at these places, in this order; a piece is read only where it holds some of them."""
        pieces, within = np.divmod(places, PIECE_ROWS)
        parts, found = [], []
        for number in np.unique(pieces):
            here = np.flatnonzero(pieces == number)
            parts.append(polars.read_parquet(self._pieces[number])[within[here]])
            found.append(here)
        if not parts:
            return polars.read_parquet(self._pieces[0]).clear()
        return polars.concat(parts)[np.argsort(np.concatenate(found))]


def write_manifest(folder: Path, kind: str, records: list[dict[str, Any]], bad: Sequence[BadRow]) -> dict[str, Any]:
    """Write the three files of one set that is at hand, as `ManifestWriter` does."""
    writer = ManifestWriter(folder, kind)
    for record in records:
        writer.add(record)
    for row in bad:
        writer.bad.add(row)
    return writer.finish()


def read_manifest(folder: Path, columns: Collection[str] | None = None) -> DataFrame:
    """The records of one set, sorted by id and checked against the schema of their kind.

    With `columns` only these are read, as far as the kind has them, and nothing but their number is checked. Raises
    ArtifactError when the folder is incomplete, of another format version, or damaged.
    """
    summary = artifacts.read_json(folder / "ingest.json")
    if summary.get("format_version") != FORMAT_VERSION or summary.get("kind") not in SCHEMAS:
        raise ArtifactError(f"{folder}/ingest.json: not of format {FORMAT_VERSION}; run `gapbridge ingest` again")
    path = folder / "manifest.parquet"
    try:
        names = polars.read_parquet_schema(path)
        wanted = None if columns is None else [name for name in names if name in columns]
        frame = polars.read_parquet(path, columns=wanted)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: not a table ({_one_line(error)}); run `gapbridge ingest` again") from error
    if frame.height != summary["rows"]:
        raise ArtifactError(f"{path}: {frame.height} rows, ingest.json says {summary['rows']}; run `gapbridge ingest`")
    return frame if columns is not None else checked(summary["kind"], frame, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
