"""geometry: measure the gap before and after the alignment, and draw it (arXiv 2602.07026 §3, App. D).

Reads the vectors of texts, images and probe, the alignment, the texts themselves and the encoder with the snapshots of
its training; writes what `gapbridge gap` writes, by the same code. The probe's pairs measure and fit nothing.
Shapes: `n` rows, `d` width.
"""

from typing import Any

import numpy as np

from gapbridge import artifacts
from gapbridge.align import Alignment
from gapbridge.corpus.manifest import read_manifest
from gapbridge.drawing.diagnosis import write_diagnosis
from gapbridge.embeddings.encoders import load_words
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import InputError
from gapbridge.geometry import gap
from gapbridge.geometry.diagnosis import Sample, diagnose, pair_figures
from gapbridge.geometry.lengths import by_length
from gapbridge.geometry.spectrum import NEGLIGIBLE, covariance_spectrum
from gapbridge.geometry.trajectory import Recording, late_window, panels, trace
from gapbridge.stages.runner import StageRun

_NO_SPREAD = 1e-12
REFERENCE = 0.5
"""The frame is that of the snapshot after this share of the training: directions are there, the gap still moves."""


def run(stage: StageRun) -> dict[str, Any]:
    """Measure on the probe and on `geometry.rows` rows a side; draw everything that there is to draw."""
    images = Shards.open(stage.artifact("embed", "images", "images"))
    texts = Shards.open(stage.artifact("embed", "texts", "texts"), images.fingerprint, images.width)
    alignment = Alignment.load(stage.artifact("realign"), images.width, images.fingerprint)
    rows, seed = stage.params.geometry.rows, stage.params.seed
    places, text_ids = _chosen(texts.rows, rows, seed + 1), texts.ids
    ids = [text_ids[place] for place in places]
    sample = Sample.of(texts.read(places), images.read(_chosen(images.rows, rows, seed)))
    aligned = alignment.apply(sample.texts, ids)
    _demand_spread({"image": sample.images, "text": sample.texts, "aligned": aligned})
    probe, moved = _probe(stage, alignment)
    diagnosis = diagnose(sample, alignment.method, seed)
    steps = _trajectory(stage)
    late = late_window(steps) if steps else None
    figures = {
        "rows": {"texts": texts.rows, "images": images.rows},
        "sample": {"texts": len(sample.texts), "images": len(sample.images), "paired": False},
        "fit": artifacts.read_json(stage.artifact("realign", "figures.json")),
        **diagnosis.figures(),
        "pairs": pair_figures(probe),
        "probe": {"rows": len(probe.texts), **_before_and_after(probe, moved), **_paired(probe, moved)},
        "whole_sample": _before_and_after(sample, aligned),
        "domains": None,
        "lengths": _lengths(stage, ids, sample),
        "trajectory": late,
        "figure_1": panels(late) if late else None,
    }
    write_diagnosis(stage.out, diagnosis, figures, steps)
    return figures


def _probe(stage: StageRun, alignment: Alignment) -> tuple[Sample, np.ndarray]:
    """The probe's pairs, which the alignment never saw, and its texts aligned (n, d)."""
    images = Shards.open(stage.artifact("embed", "probe", "images"), alignment.fingerprint, alignment.width)
    texts = Shards.open(stage.artifact("embed", "probe", "texts"), alignment.fingerprint, alignment.width)
    pairs = Sample.of(texts.read(texts.places(images.ids)), images.read(np.arange(images.rows)), paired=True)
    return pairs, alignment.apply(pairs.texts, images.ids)


def _before_and_after(sample: Sample, aligned: np.ndarray) -> dict[str, float]:
    return {
        "gap_before": gap.centroid_gap(sample.texts, sample.images),
        "gap_after": gap.centroid_gap(aligned, sample.images),
        "trace_ratio_before": gap.trace_ratio(sample.texts, sample.images),
        "trace_ratio_after": gap.trace_ratio(aligned, sample.images),
    }


def _paired(probe: Sample, aligned: np.ndarray) -> dict[str, float]:
    return {
        "paired_cosine_before": gap.paired_cosine(probe.texts, probe.images),
        "paired_cosine_after": gap.paired_cosine(aligned, probe.images),
    }


def _trajectory(stage: StageRun) -> list[dict[str, float]]:
    """Figure 1 from the encoder's snapshots; empty for an encoder that was not trained here."""
    folder = stage.artifact("encoder") / "snapshots"
    if not folder.exists():
        return []
    steps = np.array(artifacts.read_json(folder / "snapshots.json")["steps"])
    names = ("images", "texts", "image_gradients", "text_gradients")
    arrays = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in names)
    return trace(Recording(steps, *arrays), reference=int(REFERENCE * (len(steps) - 1)))


def _lengths(stage: StageRun, ids: list[str], sample: Sample) -> dict[str, dict[str, float]] | None:
    manifest = read_manifest(stage.artifact("ingest", "texts"))
    words = dict(zip(manifest["id"], manifest["text"], strict=True))
    texts, cut = [words[row_id] for row_id in ids], None
    if "vectors" not in artifacts.read_json(stage.artifact("ingest", "texts", "ingest.json")):
        reads = load_words(stage.artifact("encoder"))
        cut = [count > reads.context_length for count in reads.token_counts(texts)]
    return by_length(texts, sample.texts, sample.images, cut)


def _chosen(total: int, rows: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(total, size=min(rows, total), replace=False))


def _demand_spread(clouds: dict[str, np.ndarray]) -> None:
    for side, rows in clouds.items():
        eigenvalues = covariance_spectrum(rows)
        # Equal rows leave rounding in place of zeros.
        if eigenvalues[0] < _NO_SPREAD or not (eigenvalues[1:] > NEGLIGIBLE * eigenvalues[0]).any():
            raise InputError(f"geometry: the {side} vectors lie on a point or a line; give contents that differ more")
