"""Vectors on disk: a folder of float16 matrices with their ids, sealed by an index that is written last.

`emb_00000.npy` (n, d) float16 unit rows, `ids_00000.parquet` (columns id, group_id), `index.json`.
Shapes: `n` rows, `d` width, `b` rows of one batch.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gapbridge import artifacts
from gapbridge.errors import ArtifactError

if TYPE_CHECKING:
    import polars  # imported where a table is read or written: it takes longer than thousands of rows do

FORMAT_VERSION = 1
DTYPE = np.dtype("<f2")
INDEX_FILE = "index.json"

Batch = tuple[Sequence[str], np.ndarray]
"""Ids (b,) and their rows (b, d)."""


def write_shards(
    folder: Path, batches: Iterable[Batch], fingerprint: str, shard_rows: int, groups: Sequence[str] | None = None
) -> Shards:
    """Write batches of ids and unit rows in their order, `shard_rows` rows a shard; returns them opened.

    `groups` names the group of every row (n,) over all batches; None means that each row is its own group.
    Raises ArtifactError where a row holds NaN, an id repeats, or widths differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    seen: set[str] = set()
    width, first_row = None, 0
    for ids, rows in _regroup(batches, shard_rows):
        width = rows.shape[1]
        _check(folder, ids, rows, seen)
        own_groups = ids if groups is None else groups[first_row : first_row + len(ids)]
        entries.append(_write_one(folder, len(entries), ids, own_groups, rows))
        first_row += len(ids)
    if width is None or (groups is not None and len(groups) != first_row):
        raise ArtifactError(f"{folder}: {first_row} vectors for {len(groups or [])} records; embed again")
    _seal(folder, first_row, width, fingerprint, entries)
    return Shards.open(folder)


def append_shard(
    folder: Path, ids: Sequence[str], rows: np.ndarray, fingerprint: str, groups: Sequence[str] | None = None
) -> None:
    """Add unit rows (b, d) as one more shard; whoever reads meanwhile sees the folder before it or after it.

    An unfinished shard that a killed process left is overwritten. One process may write at a time. Raises
    ArtifactError where a row holds NaN, an id repeats among these, or the folder is damaged or of another encoder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries, earlier = [], 0
    if (folder / INDEX_FILE).exists():
        shards = Shards.open(folder, fingerprint, rows.shape[1])
        entries, earlier = artifacts.read_json(folder / INDEX_FILE)["shards"], shards.rows
    _check(folder, list(ids), rows, set())
    entries.append(_write_one(folder, len(entries), list(ids), ids if groups is None else groups, rows))
    _seal(folder, earlier + len(ids), rows.shape[1], fingerprint, entries)


@dataclass(frozen=True)
class Shards:
    """A folder of vectors that is whole: how many, how wide, of which encoder."""

    folder: Path
    rows: int
    width: int
    fingerprint: str
    counts: tuple[int, ...]
    """Rows of each shard."""
    digests: tuple[str, ...]
    """sha256 of each shard's matrix, then of each shard's ids."""

    @classmethod
    def open(cls, folder: Path, fingerprint: str | None = None, width: int | None = None) -> Shards:
        """Read the index of `folder` and check the shards' shapes against it.

        Raises ArtifactError where it is missing, damaged, or of another encoder (`fingerprint`) or `width`.
        """
        path = folder / INDEX_FILE
        index = artifacts.read_json(path)
        try:
            if index["format_version"] != FORMAT_VERSION or index["dtype"] != DTYPE.name:
                raise ArtifactError(
                    f"{path}: format {index['format_version']} {index['dtype']} is unknown; embed again"
                )
            entries = index["shards"]
            digests = [entry["emb_sha256"] for entry in entries] + [entry["ids_sha256"] for entry in entries]
            counts = tuple(int(entry["rows"]) for entry in entries)
            shards = cls(folder, index["rows"], index["width"], index["fingerprint"], counts, tuple(digests))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: damaged ({error}); embed again") from error
        shards.require(fingerprint, width)
        if any(shards._matrix(i).shape != (count, shards.width) for i, count in enumerate(counts)):
            raise ArtifactError(f"{folder}: shards do not have the shape that index.json states; embed again")
        return shards

    def require(self, fingerprint: str | None = None, width: int | None = None) -> None:
        """Raise ArtifactError unless these vectors come from that encoder and have that width."""
        if width is not None and width != self.width:
            raise ArtifactError(f"{self.folder}: width {self.width}, expected {width}; embed again")
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise ArtifactError(f"{self.folder}: of encoder {self.fingerprint}, expected {fingerprint}; embed again")

    @property
    def ids(self) -> list[str]:
        """Ids of the rows, (n,)."""
        return self._table["id"].to_list()

    @property
    def groups(self) -> list[str]:
        """Group of every row, (n,)."""
        return self._table["group_id"].to_list()

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """Ids and float32 rows (b, d), at most `batch_rows` at a time, in order; no more than that is in memory.

        Raises ArtifactError where a row holds NaN or infinity.
        """
        ids, start = self.ids, 0
        for number, count in enumerate(self.counts):
            with (self.folder / _names(number)[0]).open("rb") as handle:
                handle.seek(self._matrix(number).offset)
                for first in range(0, count, batch_rows):
                    size = min(batch_rows, count - first)
                    flat = np.fromfile(handle, dtype=DTYPE, count=size * self.width)
                    rows = flat.reshape(size, self.width).astype(np.float32)
                    self._demand_finite(rows, range(start, start + size))
                    yield ids[start : start + size], rows
                    start += size

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """float32 rows (len(indices), d) at those places, in that order.

        Raises IndexError outside 0 ≤ i < n, ArtifactError where a row holds NaN or infinity.
        """
        places = np.asarray(indices, dtype=np.int64)
        if len(places) and (places.min() < 0 or places.max() >= self.rows):
            raise IndexError(f"{self.folder}: rows 0 to {self.rows - 1}, asked for {places.min()} to {places.max()}")
        result = np.empty((len(places), self.width), dtype=np.float32)
        first = 0
        for number, count in enumerate(self.counts):
            here = np.flatnonzero((places >= first) & (places < first + count))
            if len(here):
                result[here] = self._matrix(number)[places[here] - first]
            first += count
        self._demand_finite(result, places)
        return result

    def places(self, ids: Sequence[str]) -> np.ndarray:
        """Where those ids stand, (len(ids),). Raises ArtifactError naming the first id without a vector."""
        place = {row_id: i for i, row_id in enumerate(self.ids)}
        missing = next((row_id for row_id in ids if row_id not in place), None)
        if missing is not None:
            raise ArtifactError(f"{self.folder}: no vector of record {missing!r}; embed again")
        return np.fromiter((place[row_id] for row_id in ids), dtype=np.int64, count=len(ids))

    def _demand_finite(self, rows: np.ndarray, places: Sequence[int] | np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            place = int(places[bad[0]])
            shard = int(np.searchsorted(np.cumsum(self.counts), place, side="right"))
            # Sets lie in artifacts/embed/<set>/<side>.
            raise ArtifactError(
                f"{self.folder / _names(shard)[0]}: the vector of {self.ids[place]!r} holds NaN or infinity;"
                f" run `gapbridge embed {self.folder.parent.name}` again"
            )

    @cached_property
    def _table(self) -> polars.DataFrame:
        import polars

        try:
            parts = [polars.read_parquet(self.folder / _names(i)[1]) for i in range(len(self.counts))]
            return polars.concat(parts).select("id", "group_id")
        except (FileNotFoundError, polars.exceptions.PolarsError) as error:
            raise ArtifactError(f"{self.folder}: ids cannot be read ({error}); embed again") from error

    def _matrix(self, number: int) -> np.memmap:
        path = self.folder / _names(number)[0]
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
            raise ArtifactError(f"{path}: missing or damaged; embed again") from error


def _seal(folder: Path, rows: int, width: int, fingerprint: str, entries: list[dict[str, object]]) -> None:
    artifacts.write_json(
        folder / INDEX_FILE,
        {
            "format_version": FORMAT_VERSION,
            "rows": rows,
            "width": width,
            "dtype": DTYPE.name,
            "fingerprint": fingerprint,
            "shards": entries,
        },
    )


def _names(number: int) -> tuple[str, str]:
    return f"emb_{number:05d}.npy", f"ids_{number:05d}.parquet"


def _regroup(batches: Iterable[Batch], shard_rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """The same rows in pieces of `shard_rows`, whatever the batches were."""
    ids: list[str] = []
    parts: list[np.ndarray] = []
    for batch_ids, rows in batches:
        if len(batch_ids) != len(rows):
            raise ValueError(f"{len(batch_ids)} ids for {len(rows)} rows")
        if parts and rows.shape[1:] != parts[0].shape[1:]:
            raise ArtifactError(
                f"vectors of width {rows.shape[1]} among those of width {parts[0].shape[1]}; embed again"
            )
        while len(ids) + len(batch_ids) >= shard_rows:
            cut = shard_rows - len(ids)
            yield [*ids, *batch_ids[:cut]], np.concatenate([*parts, rows[:cut]])
            ids, parts, batch_ids, rows = [], [], batch_ids[cut:], rows[cut:]
        ids.extend(batch_ids)
        parts.append(rows)
    if ids:
        yield ids, np.concatenate(parts)


def _check(folder: Path, ids: list[str], rows: np.ndarray, seen: set[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ArtifactError(f"{folder}: the vector of {ids[bad[0]]!r} holds NaN or infinity; check the encoder")
    before = len(seen)
    seen.update(ids)
    if len(seen) != before + len(ids):
        raise ArtifactError(f"{folder}: an id repeats among {ids[0]!r} to {ids[-1]!r}; ids must be unique")


def _write_one(folder: Path, number: int, ids: list[str], groups: Sequence[str], rows: np.ndarray) -> dict[str, object]:
    import polars

    emb_name, ids_name = _names(number)
    matrix, table = io.BytesIO(), io.BytesIO()
    np.save(matrix, np.ascontiguousarray(rows, dtype=DTYPE), allow_pickle=False)
    polars.DataFrame({"id": ids, "group_id": list(groups)}).write_parquet(table, compression="zstd")
    artifacts.write_bytes(folder / emb_name, matrix.getvalue())
    artifacts.write_bytes(folder / ids_name, table.getvalue())
    return {
        "rows": len(ids),
        "emb_sha256": hashlib.sha256(matrix.getvalue()).hexdigest(),
        "ids_sha256": hashlib.sha256(table.getvalue()).hexdigest(),
    }
