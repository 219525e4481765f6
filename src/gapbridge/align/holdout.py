"""Measure an alignment on groups that it was not fitted on, beside what chance alone would leave.

Shapes: `n` rows, `m` rows of the other side, `d` width.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.fit import aligned_mean, fit, summarise
from gapbridge.align.rows import RowBatches, Rows
from gapbridge.errors import InputError


@dataclass(frozen=True)
class Side:
    """The vectors of one modality, (n, d), and the group of every row; a group never crosses the split."""

    rows: Rows
    groups: Sequence[str]


def fit_held_out(
    texts: Side,
    images: Side,
    method: str = "realign",
    holdout: float = 0.1,
    seed: int = 0,
    fingerprint: str | None = None,
    sources: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Alignment, dict[str, Any]]:
    """Fit on all but `holdout` of the groups; return the alignment and its figures (docs/method.md).

    `gap_before` and `gap_after` are of the rows fitted on; `gap_heldout` and `sampling_floor` are None where
    nothing is held out. Raises InputError where a side has too few groups or rows to split.
    """
    splits = {"texts": _split(texts, "texts", holdout, seed), "images": _split(images, "images", holdout, seed)}
    fitted = {name: split.fitted for name, split in splits.items()}
    alignment = fit(fitted["texts"], fitted["images"], method, fingerprint=fingerprint, sources=sources)
    after = np.linalg.norm(aligned_mean(alignment, fitted["texts"]) - alignment.image_mean)
    metrics: dict[str, Any] = {
        "method": alignment.method,
        "n_texts": alignment.text_count,
        "n_images": alignment.image_count,
        "width": alignment.width,
        "text_trace": alignment.text_trace,
        "image_trace": alignment.image_trace,
        "scale": alignment.scale,
        "gap_before": float(np.linalg.norm(alignment.text_mean - alignment.image_mean)),
        "gap_after": float(after),
        "off_unit_texts": alignment.text_off_unit,
        "off_unit_images": alignment.image_off_unit,
    }
    return alignment, metrics | _held_out_figures(alignment, splits["texts"], splits["images"])


def held_out_groups(groups: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Mask (n,) of the rows whose group is held out: `fraction` of the groups, at least one, chosen by hash.

    A group's rank depends on `seed` and its name alone, so that both sides agree about it.
    """
    distinct = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    held = set(distinct[: max(1, round(fraction * len(distinct)))]) if fraction > 0 else set()
    return np.fromiter((group in held for group in groups), dtype=bool, count=len(groups))


def effective_number(groups: Sequence[str]) -> float:
    """1/Σp², p the share of a group among the rows: how many rows these are worth where groups repeat."""
    counts = np.array(list(Counter(groups).values()), dtype=np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())


def sampling_floor(alignment: Alignment, images: tuple[float, float], texts: tuple[float, float]) -> float:
    """The held-out gap that chance alone would leave (arXiv 2602.07026 App. D).

    √(T_x (1/n_fit + 1/n_held) + s² T_y (1/m_fit + 1/m_held)); `images` = (n_fit, n_held) and `texts` =
    (m_fit, m_held) are effective numbers of rows.
    """
    image_part = alignment.image_trace * sum(1 / number for number in images)
    text_part = alignment.scale**2 * alignment.text_trace * sum(1 / number for number in texts)
    return float(np.sqrt(image_part + text_part))


@dataclass(frozen=True)
class _Split:
    fitted: RowBatches
    held: RowBatches | None
    fitted_number: float
    held_number: float | None


def _split(side: Side, name: str, fraction: float, seed: int) -> _Split:
    """One side cut in two by its groups; nothing is held out at fraction 0."""
    if not 0 <= fraction < 1:
        raise InputError(f"holdout {fraction}: must be 0 or more and less than 1")
    mask = held_out_groups(side.groups, fraction, seed)
    if not mask.any():
        return _Split(RowBatches(side.rows, name), None, effective_number(side.groups), None)
    if (~mask).sum() < 2:
        raise InputError(f"{name}: too few groups ({len(set(side.groups))}) to hold {fraction:g} of them out")
    kept = [group for group, held in zip(side.groups, mask, strict=True) if not held]
    left_out = [group for group, held in zip(side.groups, mask, strict=True) if held]
    return _Split(
        RowBatches(side.rows, name, ~mask),
        RowBatches(side.rows, f"held-out {name}", mask),
        effective_number(kept),
        effective_number(left_out),
    )


def _held_out_figures(alignment: Alignment, texts: _Split, images: _Split) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "effective_texts": texts.fitted_number,
        "effective_images": images.fitted_number,
        "effective_texts_heldout": texts.held_number,
        "effective_images_heldout": images.held_number,
        "gap_heldout": None,
        "sampling_floor": None,
    }
    if texts.held is None or images.held is None:
        return figures
    image_mean = summarise(images.held)[0].mean
    floor = sampling_floor(
        alignment, (images.fitted_number, images.held_number), (texts.fitted_number, texts.held_number)
    )
    gap = np.linalg.norm(aligned_mean(alignment, texts.held) - image_mean)
    return figures | {"gap_heldout": float(gap), "sampling_floor": floor}
