"""geometry: measure the gap before and after the alignment, and draw it (arXiv 2602.07026 App. D).

Reads the vectors of texts, images and probe and the alignment; writes spectra.parquet and plane.parquet with
spectra.png and gap.png beside them. Pairs of the probe measure, nothing is fitted on them.
Shapes: `n` rows, `d` width.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars

from gapbridge import artifacts
from gapbridge.align import Alignment
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import InputError
from gapbridge.geometry import gap, spectrum
from gapbridge.stages.runner import StageRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_SPREAD = 1e-12
SIDES = ("image", "text", "aligned")


def run(stage: StageRun) -> dict[str, Any]:
    """Measure on the probe and on `geometry.rows` rows a side; draw spectra and the gap's plane."""
    images = Shards.open(stage.artifact("embed", "images", "images"))
    texts = Shards.open(stage.artifact("embed", "texts", "texts"), images.fingerprint, images.width)
    alignment = Alignment.load(stage.artifact("realign"), images.width, images.fingerprint)
    probe = _probe(stage, alignment)
    clouds = _clouds(images, texts, alignment, stage.params.geometry.rows, stage.params.seed)
    spectra = {side: spectrum.covariance_spectrum(clouds[side]) for side in SIDES}
    _demand_spread(spectra)
    shapes = {side: _shape(spectra[side]) for side in SIDES}
    _write_spectra(stage.out, spectra, {side: shapes[side]["power_law_exponent"] for side in SIDES})
    _write_plane(stage.out, clouds)
    return {
        "probe": probe,
        "sample": {"rows_image": len(clouds["image"]), "rows_text": len(clouds["text"]), **_pair(clouds)},
        "spectrum": shapes,
    }


def _probe(stage: StageRun, alignment: Alignment) -> dict[str, Any]:
    """Figures on the probe's pairs, which the alignment never saw."""
    images = Shards.open(stage.artifact("embed", "probe", "images"), alignment.fingerprint, alignment.width)
    texts = Shards.open(stage.artifact("embed", "probe", "texts"), alignment.fingerprint, alignment.width)
    everything = np.arange(images.rows)
    image_rows, text_rows = images.read(everything), texts.read(texts.places(images.ids))
    aligned = alignment.apply(text_rows, images.ids)
    return {
        "rows": images.rows,
        **_pair({"image": image_rows, "text": text_rows, "aligned": aligned}),
        "paired_cosine_before": gap.paired_cosine(text_rows, image_rows),
        "paired_cosine_after": gap.paired_cosine(aligned, image_rows),
    }


def _pair(clouds: dict[str, np.ndarray]) -> dict[str, float]:
    """Gap and trace ratio, texts against images, before and after."""
    image = clouds["image"]
    return {
        "gap_before": gap.centroid_gap(clouds["text"], image),
        "gap_after": gap.centroid_gap(clouds["aligned"], image),
        "trace_ratio_before": gap.trace_ratio(clouds["text"], image),
        "trace_ratio_after": gap.trace_ratio(clouds["aligned"], image),
    }


def _clouds(images: Shards, texts: Shards, alignment: Alignment, rows: int, seed: int) -> dict[str, np.ndarray]:
    """At most `rows` rows (n, d) a side, drawn by the seed, and the same texts aligned."""
    image_places, text_places = _sample(images.rows, rows, seed), _sample(texts.rows, rows, seed + 1)
    text_ids, text_rows = texts.ids, texts.read(text_places)
    aligned = alignment.apply(text_rows, [text_ids[place] for place in text_places])
    return {"image": images.read(image_places), "text": text_rows, "aligned": aligned}


def _sample(total: int, rows: int, seed: int) -> np.ndarray:
    chosen = np.random.default_rng(seed).choice(total, size=min(rows, total), replace=False)
    return np.sort(chosen)


def _demand_spread(spectra: dict[str, np.ndarray]) -> None:
    for side, eigenvalues in spectra.items():
        # Equal rows leave rounding in place of zeros.
        if eigenvalues[0] < _NO_SPREAD or not (eigenvalues[1:] > spectrum.NEGLIGIBLE * eigenvalues[0]).any():
            raise InputError(f"geometry: the {side} vectors lie on a point or a line; give contents that differ more")


def _shape(eigenvalues: np.ndarray) -> dict[str, float]:
    return {
        "trace": float(eigenvalues.sum()),
        "effective_rank": spectrum.effective_rank(eigenvalues),
        "power_law_exponent": spectrum.power_law_exponent(eigenvalues),
        "condition_number": spectrum.condition_number(eigenvalues),
    }


def _write_spectra(out: Path, spectra: dict[str, np.ndarray], exponents: dict[str, float]) -> None:
    from gapbridge.geometry.figures import draw_spectra

    ranks = np.arange(1, len(spectra["image"]) + 1)
    polars.DataFrame({"rank": ranks, **spectra}).write_parquet(out / "spectra.parquet")
    _save(draw_spectra(spectra, exponents), out / "spectra.png")


def _write_plane(out: Path, clouds: dict[str, np.ndarray]) -> None:
    from gapbridge.geometry.figures import draw_gap

    origin, axes = gap.gap_plane(clouds["text"], clouds["image"])
    points = {side: gap.in_plane(clouds[side], origin, axes) for side in SIDES}
    frames = [polars.DataFrame({"across": points[s][:, 0], "along": points[s][:, 1], "side": s}) for s in SIDES]
    polars.concat(frames).write_parquet(out / "plane.parquet")
    figures = _pair(clouds)
    _save(draw_gap(points, figures["gap_before"], figures["gap_after"]), out / "gap.png")


def _save(figure: "Figure", path: Path) -> None:
    """A PNG without the name and version of the program that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    artifacts.write_bytes(path, buffer.getvalue())
