"""The alignment on people's own files: fit it, apply it, and ask whether its statistics still fit.

Shapes: `n` rows, `d` width.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gapbridge import artifacts
from gapbridge.align import Alignment, Drift, Options, RowBatches, Side, fit_held_out, measure_drift
from gapbridge.align.alignment import SETTINGS_FILE, TENSORS_FILE
from gapbridge.align.rows import Block
from gapbridge.embeddings.part_writer import PartWriter
from gapbridge.embeddings.shards import INDEX_FILE
from gapbridge.embeddings.vectors import (
    EMBEDDING_FOLDERS,
    METADATA_FOLDER,
    SideName,
    Vectors,
    open_vectors,
)
from gapbridge.errors import InputError

_log = logging.getLogger(__name__)
QUARANTINE_FILE = "quarantine.parquet"
MAX_BAD_FRACTION = 0.001
SAMPLE_ROWS = 10_000
"""A side, for what `gap` does not measure on all rows: half a minute at width 1280 on two cores."""


def fit_files(
    texts: Path, images: Path, out: Path, options: Options, max_bad_fraction: float = MAX_BAD_FRACTION
) -> dict[str, Any]:
    """Fit on the vectors at `texts` and `images` and save the alignment in the folder `out`.

    Returns the figures of `fit_held_out`. Bad rows are left out and listed in quarantine.parquet. Raises InputError
    or ArtifactError, and then leaves `out` as it was.
    """
    require_free(out, {SETTINGS_FILE, TENSORS_FILE, QUARANTINE_FILE})
    text, image = open_sides(texts, images)
    rows = {"texts": batches(text, "texts", max_bad_fraction), "images": batches(image, "images", max_bad_fraction)}
    sides = Side(rows["texts"], text.groups, text.rows), Side(rows["images"], image.groups, image.rows)
    alignment, figures = fit_held_out(*sides, options)
    alignment = alignment.with_origin(
        text.fingerprint or image.fingerprint, {"texts": text.digests, "images": image.digests}
    )
    with replacing(out) as folder:
        alignment.save(folder)
        write_quarantine(folder, {name: side.bad for name, side in rows.items()})
    return figures


def apply_files(
    alignment_folder: Path, texts: Path, out: Path, dtype: np.dtype, max_bad_fraction: float = MAX_BAD_FRACTION
) -> dict[str, Any]:
    """Write the vectors at `texts`, aligned, to `out` in clip-retrieval's layout: in their order, with their ids.

    Returns counts. Raises as `fit_files` does, and ArtifactError where the alignment belongs to other vectors.
    """
    require_free(out, {EMBEDDING_FOLDERS["texts"], METADATA_FOLDER, INDEX_FILE, QUARANTINE_FILE})
    alignment, text = Alignment.load(alignment_folder), open_vectors(texts, "texts")
    _require_same_encoder(alignment, text)
    bad: dict[int, str] = {}
    off_unit = first = 0
    with replacing(out) as folder:
        writer = PartWriter(folder, "texts", text.width, dtype, text.fingerprint)
        for number, part in enumerate(text.parts):
            rows = batches(text.only(number), "texts", max_bad_fraction=1.0)
            writer.write(rows.map(_mover(alignment, text, number, dtype)), part.rows, partial(text.ids, number))
            bad |= {first + place: reason for place, reason in rows.bad.items()}
            off_unit, first = off_unit + rows.off_unit, first + part.rows
        _demand_few_bad(bad, text.rows, max_bad_fraction)
        writer.close()
        write_quarantine(folder, {"texts": bad})
    return {"n_texts": text.rows - len(bad), "width": text.width, "off_unit_texts": off_unit, "bad_texts": len(bad)}


def drift_files(
    alignment_folder: Path, texts: Path, images: Path | None, max_bad_fraction: float = MAX_BAD_FRACTION
) -> Drift:
    """Whether the stored statistics still fit the vectors at `texts`, and at `images`. Raises as `fit_files` does."""
    alignment = Alignment.load(alignment_folder)
    paths: dict[SideName, Path | None] = {"texts": texts, "images": images}
    sides = {}
    for name, path in paths.items():
        if path is not None:
            vectors = open_vectors(path, name)
            _require_same_encoder(alignment, vectors)
            sides[name] = Side(batches(vectors, name, max_bad_fraction), vectors.groups, vectors.rows)
    return measure_drift(alignment, sides["texts"], sides.get("images"))


def open_sides(texts: Path, images: Path) -> tuple[Vectors, Vectors]:
    """Both sides. Raises InputError where they are known to come from two encoders."""
    text, image = open_vectors(texts, "texts"), open_vectors(images, "images")
    if None not in (text.fingerprint, image.fingerprint) and text.fingerprint != image.fingerprint:
        raise InputError(f"{texts}: of encoder {text.fingerprint}, {images}: of {image.fingerprint}; embed with one")
    return text, image


def batches(vectors: Vectors, name: SideName, max_bad_fraction: float) -> RowBatches:
    """The rows of `vectors` for the alignment; each walk is seen."""
    return RowBatches(Shown(vectors, name), name, max_bad_fraction)


class Shown:
    """Vectors whose walks are seen: a progress bar on a terminal, a line a walk elsewhere."""

    def __init__(self, vectors: Vectors, name: str) -> None:
        self._vectors, self._name = vectors, name

    def __iter__(self) -> Iterator[np.ndarray]:
        rows = self._vectors.rows
        with tqdm(total=rows, desc=self._name, unit=" rows", unit_scale=True, leave=False, disable=None) as progress:
            for batch in self._vectors:
                yield batch
                progress.update(len(batch))
            if progress.disable:
                _log.info("%s: %s rows read", self._name, f"{rows:,}")


def _require_same_encoder(alignment: Alignment, vectors: Vectors) -> None:
    """Width always, the encoder where both sides know theirs: a bare .npy says nothing of it."""
    known = alignment.fingerprint is not None and vectors.fingerprint is not None
    alignment.require(vectors.width, vectors.fingerprint if known else None)


def _mover(alignment: Alignment, texts: Vectors, number: int, dtype: np.dtype) -> Any:
    """The work on one block of a part: the places of its rows, and these aligned, in the type they are stored in."""
    ids = texts.ids(number) if alignment.noise else None

    def move(block: Block) -> tuple[np.ndarray, np.ndarray]:
        row_ids = None if ids is None else ids.gather(block.places).to_list()
        return block.places, alignment.moved(block.rows, block.lengths, row_ids).whole(dtype)

    return move


def _demand_few_bad(bad: dict[int, str], total: int, max_bad_fraction: float) -> None:
    if len(bad) > max_bad_fraction * total:
        first = min(bad)
        raise InputError(f"texts row {first}: {bad[first]}; {len(bad)} of {total} rows are bad, clean them first")


def write_quarantine(folder: Path, bad: dict[str, dict[int, str]]) -> None:
    """quarantine.parquet (side, row, reason) in `folder`, where there are bad rows at all."""
    rows = [(side, row, reason) for side, rows in bad.items() for row, reason in sorted(rows.items())]
    if rows:
        import polars  # takes a tenth of a second, and is seldom needed here

        frame = polars.DataFrame(
            rows, schema={"side": polars.String, "row": polars.Int64, "reason": polars.String}, orient="row"
        )
        frame.write_parquet(folder / QUARANTINE_FILE)


def require_free(out: Path, ours: set[str]) -> None:
    """`out` is replaced as a whole, so it is new, empty, or holds nothing but what we wrote before, `ours`.

    Raises InputError where it is not, or cannot be written.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file; name a folder")
    if out.is_dir() and {path.name for path in out.iterdir()} - ours:
        raise InputError(f"{out}: holds other files; name a new folder")
    if not os.access(there, os.W_OK):
        raise InputError(f"{there}: cannot be written; name another folder")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A folder that takes the place of `out` when the block ends well. Raises InputError where it cannot be written."""
    try:
        with artifacts.fresh_folder(out) as folder:
            yield folder
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
