"""Vectors brought along in place of an encoder: which are of use and where they lie, and their rows for the shards.

A vector is located by its file and row, `data/img_emb/img_emb_0.npy#17`, relative to the root of the sources.
Shapes: `n` rows, `d` width.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import polars

from gapbridge import artifacts
from gapbridge.embeddings.matrix_file import open_part
from gapbridge.embeddings.shards import DTYPE
from gapbridge.embeddings.vectors import EMBEDDING_FOLDERS, SideName, open_vectors
from gapbridge.errors import ArtifactError, InputError

_AMBIGUOUS = -1
_ROWS_AT_ONCE = 16_384


class Vector(NamedTuple):
    """Where a vector lies, the digest of its unit row, and why it is of no use."""

    locator: str
    sha256: str
    reason: str | None


class BroughtVectors:
    """The vectors of one side, all looked at when the first is asked for: what `corpus.origin.BroughtVectors` says."""

    def __init__(self, root: Path, path: str, side: SideName, key: str) -> None:
        """`path` is relative to `root`; `key` is what params.yaml calls it.

        Raises InputError where there is nothing to read or a file lies outside the root, ArtifactError for damage.
        """
        self.path = path
        self._vectors = open_vectors(artifacts.source_path(root, path, key), side)
        files = [artifacts.inside(root, part.path) for part in self._vectors.parts]
        for table in filter(None, (part.ids_path for part in self._vectors.parts)):
            artifacts.inside(root, table)
        self._files = [file.relative_to(root.resolve()).as_posix() for file in files]
        self._starts = np.cumsum([0, *(part.rows for part in self._vectors.parts)])
        self.rows, self.width, self.named = self._vectors.rows, self._vectors.width, self._vectors.named
        self._places: dict[str, int] = {}
        self._stems: dict[str, int] = {}

    def about(self) -> dict[str, Any]:
        """Width, the encoder's fingerprint where an index says it, and the digest of every file."""
        _ = self._looked_at
        files = dict(zip(self._files, self._vectors.digests, strict=True))
        return {"width": self._vectors.width, "fingerprint": self._vectors.fingerprint, "files": files}

    def at(self, place: int) -> Vector:
        """The one at a place from 0."""
        file = int(np.searchsorted(self._starts, place, side="right")) - 1
        locator = f"{self._files[file]}#{place - self._starts[file]}"
        digests, reasons = self._looked_at
        return Vector(locator, digests[place].tobytes().hex(), reasons.get(place))

    def find(self, names: Sequence[str]) -> Vector | None:
        """The one with the first of these names that any has: as written, then as the end of a path or its stem."""
        self._index()
        wanted = (*names, *(tail for name in names for tail in _tails(name)))
        place = next((self._places[name] for name in wanted if name in self._places), None)
        if place is None:
            place = next((self._stems[stem] for stem in map(_stem, names) if stem in self._stems), None)
        if place == _AMBIGUOUS:
            return Vector("", "", f"several vectors in {self.path} have its name")
        return None if place is None else self.at(place)

    def fields(self, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Of every one its name as `id`, and the wanted columns of the table beside, as far as they are there."""
        for number, part in enumerate(self._vectors.parts):
            frame = self._vectors.ids(number).to_frame("id")
            if part.ids_path is not None:
                known = polars.read_parquet_schema(part.ids_path)
                names = [name for name in dict.fromkeys(wanted) if name in known and name != "id"]
                frame = frame.hstack(polars.read_parquet(part.ids_path, columns=names)) if names else frame
            for row in frame.iter_rows(named=True):
                yield {name: value for name, value in row.items() if value is not None}

    @cached_property
    def _looked_at(self) -> tuple[np.ndarray, dict[int, str]]:
        """Digests (n, 32) of the unit rows, and by place what spoils some."""
        digests, reasons, start = np.zeros((self.rows, 32), dtype=np.uint8), {}, 0
        for batch in self._vectors:
            rows, lengths = _unit_rows(batch)
            for row in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))):
                zero = lengths[row] == 0
                reasons[start + int(row)] = "the vector is zero" if zero else "the vector holds NaN or infinity"
            for place, content in enumerate(rows, start):
                digests[place] = np.frombuffer(hashlib.sha256(content.data).digest(), dtype=np.uint8)
            start += len(batch)
        return digests, reasons

    def _index(self) -> None:
        """Which place a name means, and a stem that no two names share."""
        if self._places or not self.rows:
            return
        start = 0
        for number, part in enumerate(self._vectors.parts):
            for place, name in enumerate(self._vectors.ids(number), start):
                self._places[name] = _AMBIGUOUS if name in self._places else place
                stem = _stem(name)
                self._stems[stem] = _AMBIGUOUS if stem in self._stems else place
            start += part.rows


def open_sides(root: Path, path: str, sides: Sequence[SideName], key: str) -> dict[SideName, BroughtVectors]:
    """The vectors at `path` of each of these sides, and of the texts too where a folder has them beside."""
    both = all((root / path / name).is_dir() for name in EMBEDDING_FOLDERS.values())
    wanted = dict.fromkeys((*sides, *(("texts",) if both and "images" in sides else ())))
    if len(sides) > 1 and not both and not all((root / path / side).is_dir() for side in sides):
        folders = " and ".join(EMBEDDING_FOLDERS[side] for side in sides)
        raise InputError(f"{key}: {path} must hold vectors of both sides here; name a folder with {folders}")
    return {side: BroughtVectors(root, path, side, key) for side in wanted}


def one_encoder(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `BroughtVectors.about` says, of several together.

    Raises InputError where they differ in width, or in the encoder as far as that is known.
    """
    for what in ("width", "fingerprint"):
        known = {place: about[what] for place, about in told.items() if about[what] is not None}
        (first, value), *others = known.items() or [("", None)]
        for place, other in others:
            if other != value:
                raise InputError(f"{place}: vectors of {what} {other}, those of {first} {value}; bring one encoder's")
    merged = {name: digest for about in told.values() for name, digest in about["files"].items()}
    first_told = next(iter(told.values()), {"width": None})
    fingerprint = next((about["fingerprint"] for about in told.values() if about["fingerprint"]), None)
    return {"width": first_told["width"], "fingerprint": fingerprint, "files": merged}


def demand_unchanged(root: Path, files: Mapping[str, str]) -> None:
    """Raise ArtifactError unless the files, relative to `root`, still have those digests."""
    for name, sha256 in files.items():
        try:
            found = artifacts.file_digest(artifacts.inside(root, name))
        except OSError as error:
            raise ArtifactError(f"{name}: cannot be read ({error.strerror}); run `gapbridge ingest` again") from error
        if found != sha256:
            raise ArtifactError(f"{name}: changed since ingest; run `gapbridge ingest` again")


def read_rows(root: Path, locators: Sequence[str]) -> np.ndarray:
    """The unit rows (n, d) float16 at those places, in their order. Raises ArtifactError where one is missing."""
    split = [locator.rpartition("#") for locator in locators]
    files = np.array([file for file, _, _ in split])
    places = np.array([int(row) for _, _, row in split])
    parts = {file: open_part(artifacts.inside(root, str(file))) for file in np.unique(files)}
    widths = {part.width for part in parts.values()}
    if len(widths) != 1:
        raise ArtifactError(f"vectors of widths {', '.join(map(str, sorted(widths)))}; run `gapbridge ingest` again")
    found = np.empty((len(locators), widths.pop()), dtype=DTYPE)
    for file, part in parts.items():
        here = np.flatnonzero(files == file)
        if places[here].max() >= part.rows:
            raise ArtifactError(f"{file}: has {part.rows} rows, fewer than before; run `gapbridge ingest` again")
        rows = np.empty((len(here), part.width), dtype=part.dtype)
        with part.path.open("rb") as handle:
            for row, place in zip(rows, places[here], strict=True):
                handle.seek(part.offset + int(place) * row.nbytes)
                handle.readinto(row.data)
        found[here] = _unit_rows(rows)[0]
    return found


def batches(root: Path, ids: Sequence[str], locators: Sequence[str]) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Ids and unit rows, some thousands at a time, as `shards.write_shards` takes them."""
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        window = slice(start, start + _ROWS_AT_ONCE)
        yield ids[window], read_rows(root, locators[window])


def read_vector(path: Path, width: int) -> np.ndarray:
    """The one unit row (d,) float32 in a .npy file, as somebody asks about it.

    Raises InputError for anything else than a single vector of that width that has a direction.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "no .npy file"
        raise InputError(f"{path}: {reason}; give one vector saved with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape[:-1] not in ((), (1,)):
        shape = getattr(found, "shape", "several arrays")
        raise InputError(f"{path}: holds {shape}, not one vector of numbers; save one row of it")
    if found.size != width:
        raise InputError(f"{path}: a vector of width {found.size}, the model takes {width}; use the same encoder")
    rows, lengths = _unit_rows(found.reshape(1, -1))
    if not (np.isfinite(lengths[0]) and lengths[0] > 0):
        raise InputError(f"{path}: the vector is zero or holds NaN or infinity; make it again")
    return rows[0].astype(np.float32)


def _unit_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) brought to length one in float16, and the lengths (n,) that they had."""
    exact = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(exact, axis=1)
        return (exact / lengths[:, None]).astype(DTYPE), lengths


def _tails(name: str) -> Iterator[str]:
    """The ends of a path, longest first, then those without the file's suffix."""
    pieces = PurePosixPath(name).parts
    tails = ["/".join(pieces[start:]) for start in range(len(pieces))]
    yield from tails
    suffix = PurePosixPath(name).suffix
    yield from (tail.removesuffix(suffix) for tail in tails if suffix)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
