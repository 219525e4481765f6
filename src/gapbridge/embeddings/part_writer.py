"""Vectors written as clip-retrieval does, in parts of bounded size.

Shapes: `d` width, `b` rows of one block.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gapbridge import artifacts
from gapbridge.embeddings.digest import Digest
from gapbridge.embeddings.shards import INDEX_FILE
from gapbridge.embeddings.vectors import EMBEDDING_FOLDERS, FORMAT_VERSION, METADATA_FOLDER, SideName

if TYPE_CHECKING:
    import polars

PART_ROWS = 1 << 16
"""Of a file; the ids of so many rows are in memory at once."""


class PartWriter:
    """Writes vectors in clip-retrieval's layout, `text_emb/text_emb_0.npy` with `metadata/metadata_0.parquet`,
    one part after the other and never a whole one in memory; index.json, written last, has the digests."""

    def __init__(self, folder: Path, side: SideName, width: int, dtype: np.dtype, fingerprint: str | None) -> None:
        self.folder, self.side, self.width, self.dtype, self.fingerprint = folder, side, width, dtype, fingerprint
        self._entries: list[dict[str, object]] = []

    def write(
        self, blocks: Iterable[tuple[np.ndarray, np.ndarray]], rows: int, ids: Callable[[np.ndarray], polars.Series]
    ) -> None:
        """Rows as blocks of their ascending places (b,) below `rows` and themselves (b, d); a place may be missing.

        `ids` gives those of the rows at some places. Each PART_ROWS places are a part.
        """
        for window, pieces in itertools.groupby(_cut(blocks), key=lambda piece: int(piece[0][0]) // PART_ROWS):
            self._write_part(pieces, min(PART_ROWS, rows - window * PART_ROWS), ids)

    def _write_part(
        self,
        pieces: Iterable[tuple[np.ndarray, np.ndarray]],
        expected: int,
        ids: Callable[[np.ndarray], polars.Series],
    ) -> None:
        name, number = EMBEDDING_FOLDERS[self.side], len(self._entries)
        matrix = self.folder / name / f"{name}_{number}.npy"
        table = self.folder / METADATA_FOLDER / f"{METADATA_FOLDER}_{number}.parquet"
        for path in (matrix, table):
            path.parent.mkdir(parents=True, exist_ok=True)
        digest, written = Digest(), []
        with matrix.open("wb") as handle:
            header = self._header(expected)
            handle.write(header)
            digest.update(header)
            for places, rows in pieces:
                content = np.ascontiguousarray(rows, self.dtype).data
                handle.write(content)
                digest.update(content)
                written.append(places)
            places = np.concatenate(written)
            if len(places) != expected:
                handle.seek(0)
                handle.write(self._header(len(places)))
        sha256 = digest.hexdigest() if len(places) == expected else artifacts.file_digest(matrix)
        ids(places).rename("id").to_frame().write_parquet(table, compression="zstd")
        self._entries.append({"rows": len(places), "emb_sha256": sha256, "ids_sha256": artifacts.file_digest(table)})

    def _header(self, rows: int) -> bytes:
        """Always of one length, so that the number of rows can be set right afterwards."""
        content = io.BytesIO()
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (rows, self.width)}
        np.lib.format.write_array_header_1_0(content, description)
        return content.getvalue()

    def close(self) -> None:
        """Seal the folder with its index."""
        index = {"format_version": FORMAT_VERSION, "width": self.width, "dtype": self.dtype.name}
        artifacts.write_json(
            self.folder / INDEX_FILE, {**index, "fingerprint": self.fingerprint, "parts": self._entries}
        )


def _cut(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The blocks that hold rows, cut where a part ends."""
    for places, rows in blocks:
        cuts = np.flatnonzero(np.diff(places // PART_ROWS)) + 1
        if len(places):
            yield from zip(np.split(places, cuts), np.split(rows, cuts), strict=True)
