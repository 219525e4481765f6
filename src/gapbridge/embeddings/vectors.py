"""People's own vectors, in whatever of the usual layouts they lie: one matrix, walked in bounded batches.

A `.npy` file, a folder of them, the folders that clip-retrieval writes (`img_emb/`, `text_emb/`, `metadata/`), a
`.safetensors` file with one matrix, or a folder of our own shards. Files are read, not mapped, and hashed while they
are read, so that memory stays small and every digest is of the bytes that were used.
Shapes: `n` rows, `d` width, `b` rows of one batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from gapbridge import artifacts
from gapbridge.embeddings.digest import Digest
from gapbridge.embeddings.matrix_file import Part, npy_part, open_part
from gapbridge.embeddings.shards import INDEX_FILE, Shards
from gapbridge.errors import ArtifactError, InputError

if TYPE_CHECKING:
    import polars  # imported where a table is read: it takes longer than thousands of rows do

SideName = Literal["texts", "images"]
EMBEDDING_FOLDERS = {"texts": "text_emb", "images": "img_emb"}
METADATA_FOLDER = "metadata"
CAPTION_COLUMN = "caption"
ID_COLUMNS = ("id", "key", "image_path")
"""What names a row in clip-retrieval's metadata, best first."""
FORMAT_VERSION = 1
_BATCH_NUMBERS = 1 << 20
"""As many as the alignment takes at once: while it works on some, the next are read and hashed."""


class Vectors:
    """The vectors of one side, as often as they are walked; `digests` are known after the first walk."""

    def __init__(
        self, path: Path, parts: Sequence[Part], fingerprint: str | None, own: Shards | None, hashed: bool = True
    ) -> None:
        """Without `hashed` only files are hashed whose digest an index tells."""
        self.path, self.parts, self.fingerprint, self._own, self._hashed = path, tuple(parts), fingerprint, own, hashed
        self.rows, self.width = sum(part.rows for part in parts), parts[0].width
        self._digests: dict[int, str] = {}

    @property
    def digests(self) -> list[str]:
        """sha256 of every file, in order. Raises ValueError before the first whole walk."""
        if len(self._digests) != len(self.parts):
            raise ValueError(f"{self.path}: digests are known after a walk")
        return [self._digests[number] for number in range(len(self.parts))]

    @property
    def named(self) -> bool:
        """Whether all rows have names, and are not merely called by their places."""
        return all(part.ids_path is not None and _id_column(part.ids_path) is not None for part in self.parts)

    @property
    def groups(self) -> list[str] | None:
        """Group of every row (n,) where shards of our own say it; None where each row is one of its own."""
        return None if self._own is None else self._own.groups

    def __iter__(self) -> Iterator[np.ndarray]:
        """Batches (b, d) in the files' own type.

        Raises ArtifactError where a file is shorter than it says, or has another digest than its index says.
        """
        for number, part in enumerate(self.parts):
            yield from self._walk(number, part)

    def ids(self, number: int, places: np.ndarray | None = None) -> polars.Series:
        """The ids of one part's rows, or of those at ascending `places` in it.

        A row without a name is called by its place among all rows.
        """
        first = sum(part.rows for part in self.parts[:number])
        if places is None:
            return _ids(self.parts[number], first, 0, self.parts[number].rows)
        start = int(places[0])
        return _ids(self.parts[number], first, start, int(places[-1]) + 1).gather(places - start)

    def read(self, places: np.ndarray) -> np.ndarray:
        """The rows (len(places), d) at ascending places, in float32; all files are walked for them."""
        found, first = np.empty((len(places), self.width), dtype=np.float32), 0
        for batch in self:
            here = slice(*np.searchsorted(places, [first, first + len(batch)]))
            found[here] = batch[places[here] - first]
            first += len(batch)
        return found

    def captions(self) -> list[str] | None:
        """The texts themselves (n,), where clip-retrieval's metadata has them for every part."""
        tables = [part.ids_path for part in self.parts]
        if self._own is not None or None in tables:
            return None
        found = [_texts(path) for path in tables if path is not None]
        known = [column for column in found if column is not None]
        return [text or "" for column in known for text in column] if len(known) == len(found) else None

    def only(self, number: int) -> Vectors:
        """One part of them; it is only hashed where an index tells its digest."""
        return Vectors(self.path, self.parts[number : number + 1], self.fingerprint, None, hashed=False)

    def _walk(self, number: int, part: Part) -> Iterator[np.ndarray]:
        wanted = (self._hashed or part.sha256 is not None) and number not in self._digests
        digest = Digest() if wanted else None
        step = max(1, _BATCH_NUMBERS // part.width)
        with part.path.open("rb") as handle:
            head = handle.read(part.offset)
            if digest is not None:
                digest.update(head)
            for start in range(0, part.rows, step):
                batch = np.empty((min(step, part.rows - start), part.width), dtype=part.dtype)
                if handle.readinto(batch.data) != batch.nbytes:
                    raise ArtifactError(f"{part.path}: cut short in row {start}; copy it again")
                if digest is not None:
                    digest.update(batch.data)
                yield batch
            if digest is not None:
                digest.update(handle.read())
                self._digests[number] = digest.hexdigest()
                if part.sha256 is not None and part.sha256 != self._digests[number]:
                    raise ArtifactError(f"{part.path}: not the file that its index describes; write it again")


def open_vectors(path: Path, side: SideName) -> Vectors:
    """The vectors at `path`, for that side of an alignment.

    Raises InputError where there is nothing to read, ArtifactError where a file is damaged, of another shape or
    type, or parts differ in width.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist; give {side} as .npy, .safetensors or a folder of them")
    own = fingerprint = None
    if (path / EMBEDDING_FOLDERS[side]).is_dir():
        parts, fingerprint = _retrieval_parts(path / EMBEDDING_FOLDERS[side])
    elif (path / INDEX_FILE).is_file():
        own = Shards.open(path)
        parts, fingerprint = _own_parts(own), own.fingerprint
    elif (path / side / INDEX_FILE).is_file():
        own = Shards.open(path / side)
        parts, fingerprint = _own_parts(own), own.fingerprint
    elif path.is_dir() and path.name in EMBEDDING_FOLDERS.values():
        parts, fingerprint = _retrieval_parts(path)
    elif path.is_dir():
        parts = [npy_part(file) for file in _matrices(path)]
    else:
        parts = [open_part(path)]
    widths = sorted({part.width for part in parts})
    if len(widths) > 1:
        raise ArtifactError(f"{path}: files of widths {', '.join(map(str, widths))}; give one encoder's vectors")
    return Vectors(path, parts, fingerprint, own)


def _own_parts(own: Shards) -> list[Part]:
    parts = []
    for number, count in enumerate(own.counts):
        matrix = npy_part(own.folder / f"emb_{number:05d}.npy")
        ids_path = own.folder / f"ids_{number:05d}.parquet"
        parts.append(replace(matrix, rows=count, ids_path=ids_path, sha256=own.digests[number]))
    return parts


def _retrieval_parts(folder: Path) -> tuple[list[Part], str | None]:
    """clip-retrieval's parts; its metadata may be missing, and an index is there where we wrote the folder."""
    index_path, fingerprint, digests = folder.parent / INDEX_FILE, None, {}
    if index_path.is_file():
        index = artifacts.read_json(index_path)
        try:
            fingerprint = index["fingerprint"]
            digests = {number: entry["emb_sha256"] for number, entry in enumerate(index["parts"])}
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{index_path}: damaged ({error}); write the folder again") from error
    parts = []
    for number, file in enumerate(_matrices(folder)):
        suffix = file.stem.rsplit("_", 1)[-1]
        table = folder.parent / METADATA_FOLDER / f"{METADATA_FOLDER}_{suffix}.parquet"
        ids_path = table if table.is_file() else None
        parts.append(replace(npy_part(file), ids_path=ids_path, sha256=digests.get(number)))
    if digests and len(digests) != len(parts):
        raise ArtifactError(f"{index_path}: describes {len(digests)} parts, found {len(parts)}; write the folder again")
    return parts, fingerprint


def _matrices(folder: Path) -> list[Path]:
    """The .npy files of a folder, 2 before 10."""
    files = sorted((path for path in folder.glob("*.npy") if path.is_file()), key=_natural)
    if not files:
        raise InputError(f"{folder}: holds no .npy file; give a folder of matrices")
    return files


def _natural(path: Path) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", path.name)
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]


def _ids(part: Part, first: int, start: int, stop: int) -> polars.Series:
    """The ids of rows `start` to `stop` of a part whose first row is row `first` of all."""
    import polars

    column = _id_column(part.ids_path) if part.ids_path else None
    if part.ids_path is None or column is None:
        return polars.Series("id", np.arange(first + start, first + stop)).cast(polars.String)
    table = polars.scan_parquet(part.ids_path)
    rows = _read(table.select(polars.len()), part.ids_path).item()
    if rows != part.rows:
        raise ArtifactError(f"{part.ids_path}: {rows} rows for {part.rows} vectors in {part.path.name}")
    wanted = table.slice(start, stop - start).select(polars.col(column).cast(polars.String))
    return _read(wanted, part.ids_path).to_series().alias("id")


def _id_column(path: Path) -> str | None:
    names = _columns(path)
    return next((name for name in ID_COLUMNS if name in names), None)


def _columns(path: Path) -> Sequence[str]:
    import polars

    return _read(polars.scan_parquet(path).head(0), path).columns


def _texts(path: Path) -> polars.Series | None:
    """The captions of a table; None where it has none."""
    import polars

    if CAPTION_COLUMN not in _columns(path):
        return None
    wanted = polars.scan_parquet(path).select(polars.col(CAPTION_COLUMN).cast(polars.String))
    return _read(wanted, path).to_series()


def _read(query: polars.LazyFrame, path: Path) -> polars.DataFrame:
    """Raises ArtifactError where the table cannot be read."""
    import polars

    try:
        return query.collect()
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy it again") from error
