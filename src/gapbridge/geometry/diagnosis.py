"""The whole diagnosis of a gap from samples of both sides: every figure of METHOD for every aligner, as plain numbers.

Fitted on one part of the sample and measured on the other. Pairs, where there are any, are used to measure alone.
Shapes: `n` texts, `m` images, `d` width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gapbridge.align import Alignment, Moments, fit, sampling_floor, unit_rows
from gapbridge.geometry import similarity
from gapbridge.geometry.frame import couple, decompose, effective_condition, fit_frame, phantom_drift
from gapbridge.geometry.gap import paired_cosine
from gapbridge.geometry.neighbours import MIXING_K, OVERLAP_K, mean_overlap, mixing, nearest
from gapbridge.geometry.samples import SizePoint, rows_needed, size_curve
from gapbridge.geometry.shape import likeness, pair_residual
from gapbridge.geometry.spectrum import condition_number, covariance_spectrum, effective_rank, power_law_exponent

METHODS = ("none", "anchor", "anchor_trace", "c3", "blockwise", "realign")
"""The aligners that are compared; `none` is the gap as it is."""


@dataclass(frozen=True)
class Sample:
    """Unit rows of both sides; with `paired`, row i of the texts belongs to row i of the images."""

    texts: np.ndarray
    images: np.ndarray
    paired: bool = False

    @classmethod
    def of(cls, texts: np.ndarray, images: np.ndarray, paired: bool = False) -> "Sample":
        """Rows of any length, made unit rows. Raises ValueError for pairs of unequal number."""
        if paired and len(texts) != len(images):
            raise ValueError(f"{len(texts)} texts and {len(images)} images are no pairs")
        return cls(unit_rows(texts, "texts")[0], unit_rows(images, "images")[0], paired)

    def split(self, seed: int) -> tuple["Sample", "Sample"]:
        """Halves to fit on and to measure on; pairs stay together."""
        random = np.random.default_rng(seed)
        text_order = random.permutation(len(self.texts))
        image_order = text_order if self.paired else random.permutation(len(self.images))
        cuts = len(text_order) // 2, len(image_order) // 2
        first = Sample(self.texts[text_order[: cuts[0]]], self.images[image_order[: cuts[1]]], self.paired)
        second = Sample(self.texts[text_order[cuts[0] :]], self.images[image_order[cuts[1] :]], self.paired)
        return first, second


@dataclass(frozen=True)
class Diagnosis:
    """Figures as plain numbers, and the data that pictures are drawn from."""

    method: str
    """The aligner that pictures and sizes are of."""
    methods: dict[str, dict[str, float]]
    images: dict[str, float]
    sizes: list[SizePoint]
    rows_needed: int
    pairs: dict[str, Any] | None
    spectra: dict[str, np.ndarray]
    """Eigenvalues (d,) of images, texts and aligned texts."""
    cosines: dict[str, np.ndarray]
    """Shares of the pairwise cosines in equal bins, likewise."""
    clouds: dict[str, np.ndarray]
    """The measured rows: image, text, aligned."""

    def figures(self) -> dict[str, Any]:
        """All numbers, as JSON takes them."""
        return {
            "methods": self.methods,
            "images": self.images,
            "sizes": [asdict(point) for point in self.sizes],
            "rows_needed": self.rows_needed,
            "pairs": self.pairs,
        }


def diagnose(sample: Sample, method: str = "realign", seed: int = 0, methods: Sequence[str] = METHODS) -> Diagnosis:
    """Everything about the gap of `sample`; pictures and sizes are of `method`."""
    fitted, held = sample.split(seed)
    known = _Known.of(held, seed)
    aligned = {name: _aligned(fitted, held, name, seed) for name in dict.fromkeys((*methods, method))}
    spectra = {"image": known.image_spectrum, "text": covariance_spectrum(held.texts)}
    spectra["aligned"] = covariance_spectrum(aligned[method][1])
    bins = {side: _bins(rows, seed) for side, rows in (("text", held.texts), ("aligned", aligned[method][1]))}
    sizes = size_curve(sample.texts, sample.images, method, seed)
    return Diagnosis(
        method=method,
        methods={name: _measure(known, held, *found) for name, found in aligned.items()},
        images=_shape(known.image_spectrum),
        sizes=sizes,
        rows_needed=rows_needed(aligned[method][0]),
        pairs=pair_figures(sample) if sample.paired else None,
        spectra=spectra,
        cosines={"image": known.image_bins, **bins},
        clouds={"image": held.images, "text": held.texts, "aligned": aligned[method][1]},
    )


@dataclass(frozen=True)
class _Known:
    """What does not depend on the aligner, worked out once."""

    image_spectrum: np.ndarray
    image_covariance: np.ndarray
    image_bins: np.ndarray
    text_neighbours: np.ndarray
    seed: int

    @classmethod
    def of(cls, held: Sample, seed: int) -> "_Known":
        covariance = Moments(held.images.shape[1], covariance=True).update(held.images).covariance
        neighbours = nearest(held.texts, _k(held.texts, OVERLAP_K))
        return cls(covariance_spectrum(held.images), covariance, _bins(held.images, seed), neighbours, seed)


def _measure(known: _Known, held: Sample, alignment: Alignment, aligned: np.ndarray) -> dict[str, float]:
    """Every figure of one aligner on rows that it was not fitted on."""
    mixed = mixing(aligned, held.images, _k(aligned, MIXING_K), known.seed)
    moments = Moments(aligned.shape[1], covariance=True).update(aligned)
    like = likeness(known.image_covariance, moments.covariance)
    figures = {
        "gap": float(np.linalg.norm(moments.mean - held.images.mean(axis=0))),
        "sampling_floor": sampling_floor(
            alignment, (alignment.image_count, len(held.images)), (alignment.text_count, len(held.texts))
        ),
        "trace_ratio": moments.trace / float(np.trace(known.image_covariance)),
        **_shape(covariance_spectrum(aligned)),
        "js_divergence": similarity.js_divergence(_bins(aligned, known.seed), known.image_bins),
        "mixing_rate": mixed.rate,
        "mixing_from_texts": mixed.from_texts,
        "mixing_from_images": mixed.from_images,
        "neighbour_overlap": mean_overlap(known.text_neighbours, nearest(aligned, _k(aligned, OVERLAP_K))),
        "kept_cosine": similarity.mean_cosine(held.texts, aligned),
        "kept_cosine_structure": similarity.cosine_correlation(held.texts, aligned, known.seed),
        **{name: float(value) for name, value in asdict(like).items()},
    }
    if held.paired:
        residual = pair_residual(held.images, held.texts, aligned)
        figures |= {
            "paired_cosine": paired_cosine(aligned, held.images),
            "residual_ratio": residual.ratio,
            "residual_anisotropy": residual.anisotropy,
            "residual_effective_dimension": residual.effective_dimension,
        }
    return figures


def pair_figures(sample: Sample) -> dict[str, Any]:
    """The theory's parts of the pairs' gap in their own frame (arXiv 2602.07026 §3)."""
    frame = fit_frame(sample.images, sample.texts)
    parts = decompose(frame, sample.images, sample.texts)
    gaps = sample.images - sample.texts
    coupling = couple(parts, frame)
    anchored = sample.texts - sample.texts.mean(axis=0) + sample.images.mean(axis=0)
    drift = phantom_drift(anchored)
    principal, passive = (rows.T @ rows / len(rows) for rows in (parts.principal_residual, parts.passive_residual))
    return {
        "rows": len(gaps),
        "frame_rank": frame.rank,
        "principal_bias": float(np.linalg.norm(parts.principal_bias)),
        "passive_bias": float(np.linalg.norm(parts.passive_bias)),
        "principal_trace": float(np.trace(principal)),
        "passive_trace": float(np.trace(passive)),
        "principal_condition": effective_condition(principal),
        "passive_condition": effective_condition(passive),
        "identity_error": float(np.abs(parts.total() - gaps).max()),
        "coupling": asdict(coupling),
        "phantom_drift": asdict(drift),
    }


def _aligned(fitted: Sample, held: Sample, method: str, seed: int) -> tuple[Alignment, np.ndarray]:
    alignment = fit(fitted.texts, fitted.images, method, seed=seed)
    return alignment, alignment.move(held.texts, [str(place) for place in range(len(held.texts))])


def _shape(spectrum: np.ndarray) -> dict[str, float]:
    return {
        "trace": float(spectrum.sum()),
        "power_law_exponent": power_law_exponent(spectrum),
        "effective_rank": effective_rank(spectrum),
        "condition_number": condition_number(spectrum),
    }


def _bins(rows: np.ndarray, seed: int) -> np.ndarray:
    return similarity.histogram(similarity.pair_cosines(rows, seed))


def _k(rows: np.ndarray, k: int) -> int:
    return min(k, len(rows) - 1)
