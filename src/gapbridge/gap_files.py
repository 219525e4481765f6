"""The whole diagnosis of a gap on people's own files: figures, pictures and one page in a folder.

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.align import Options, RowBatches, Side, fit_held_out, summarise
from gapbridge.align_files import (
    MAX_BAD_FRACTION,
    QUARANTINE_FILE,
    SAMPLE_ROWS,
    batches,
    open_sides,
    replacing,
    require_free,
    write_quarantine,
)
from gapbridge.drawing.diagnosis import WRITTEN, verdict, write_diagnosis
from gapbridge.embeddings.vectors import Vectors
from gapbridge.errors import InputError
from gapbridge.geometry.diagnosis import Sample, diagnose
from gapbridge.geometry.lengths import by_length
from gapbridge.geometry.samples import cross_domain

THESE = "these"
"""What the table across domains calls the set that is diagnosed."""
FEWEST_ROWS = 40
"""A side of fewer rows has no halves to speak of."""


def gap_files(
    texts: Path,
    images: Path,
    out: Path,
    *,
    paired: bool = False,
    options: Options = Options(),  # noqa: B008, frozen
    rows: int = SAMPLE_ROWS,
    domains: Mapping[str, tuple[Path, Path]] | None = None,
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> dict[str, Any]:
    """Diagnose the gap between the vectors at `texts` and `images` and write everything to the folder `out`.

    Gap, traces and floor are of all rows, the rest of a sample of `rows` rows a side. With `paired`, row i of the
    texts belongs to row i of the images. `domains` names further sets for the table across domains. Returns the
    figures of gap.json. Raises InputError or ArtifactError, and then leaves `out` as it was.
    """
    if THESE in (domains or {}):
        raise InputError(f"--domain {THESE}: is what --texts and --images are called; name the other set otherwise")
    require_free(out, {*WRITTEN, QUARANTINE_FILE})
    text, image = open_sides(texts, images)
    if paired and text.rows != image.rows:
        raise InputError(f"--paired: {text.rows} texts and {image.rows} images; give one image a text, in one order")
    walked = {"texts": batches(text, "texts", max_bad_fraction), "images": batches(image, "images", max_bad_fraction)}
    sides = Side(walked["texts"], text.groups, text.rows), Side(walked["images"], image.groups, image.rows)
    fitted = fit_held_out(*sides, options)[1]
    sample, places = _sample(text, image, walked, paired, rows, options.seed)
    diagnosis = diagnose(sample, options.method, options.seed)
    others = {name: _unpaired(*paths, rows, options.seed, max_bad_fraction) for name, paths in (domains or {}).items()}
    pairs = {name: (one.texts, one.images) for name, one in {THESE: sample, **others}.items()}
    figures = {
        "rows": {"texts": text.rows, "images": image.rows},
        "sample": {"texts": len(sample.texts), "images": len(sample.images), "paired": paired},
        "fit": fitted,
        **diagnosis.figures(),
        "domains": cross_domain(pairs, options.method, options.seed) if others else None,
        "lengths": _lengths(text, places, sample),
    }
    with replacing(out) as folder:
        write_diagnosis(folder, diagnosis, figures)
        write_quarantine(folder, {name: side.bad for name, side in walked.items()})
    return figures | verdict(figures)


def _sample(
    text: Vectors, image: Vectors, walked: Mapping[str, RowBatches], paired: bool, rows: int, seed: int
) -> tuple[Sample, np.ndarray]:
    """Rows by chance, good ones alone, and the texts' places; a pair is left out where either of its rows is bad."""
    good = {name: side.good() for name, side in walked.items()}
    if paired:
        both = _places(good["texts"] & good["images"], rows, seed)
        return Sample.of(text.read(both), image.read(both), paired=True), both
    places = _places(good["texts"], rows, seed)
    return Sample.of(text.read(places), image.read(_places(good["images"], rows, seed + 1))), places


def _lengths(text: Vectors, places: np.ndarray, sample: Sample) -> dict[str, dict[str, float]] | None:
    captions = text.captions()
    return None if captions is None else by_length([captions[place] for place in places], sample.texts, sample.images)


def _places(good: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """At most `rows` places of good rows, in order. Raises InputError where there are too few."""
    there = np.flatnonzero(good)
    if len(there) < FEWEST_ROWS:
        raise InputError(f"{len(there)} rows: a diagnosis needs {FEWEST_ROWS} or more a side")
    return np.sort(np.random.default_rng(seed).choice(there, size=min(rows, len(there)), replace=False))


def _unpaired(texts: Path, images: Path, rows: int, seed: int, max_bad_fraction: float) -> Sample:
    """A sample of another set, for the table across domains."""
    text, image = open_sides(texts, images)
    walked = {"texts": batches(text, "texts", max_bad_fraction), "images": batches(image, "images", max_bad_fraction)}
    for side in walked.values():
        summarise(side)
    return _sample(text, image, walked, False, rows, seed)[0]
