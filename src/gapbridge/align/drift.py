"""Do the statistics of a fitted alignment still fit new data? In figures, and in words.

Shapes: `n` rows, `d` width.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.fit import aligned_means, batches_of, summarise
from gapbridge.align.holdout import Side, effective_number
from gapbridge.align.methods import RECIPES
from gapbridge.align.moments import Moments
from gapbridge.align.rows import RowBatches

CHANCE_FACTOR = 1.5
"""Shifts and gaps up to so many times what chance alone would leave are taken for chance."""
GAP_SHARE = 0.02
"""A gap that is no larger than this share of the raw one is not worth a new fit, however certain it is."""
TRACE_RATIO = 1.25
"""A spread that grew or shrank by more than this is."""


@dataclass(frozen=True)
class Drift:
    """The figures of `measure_drift` and the reasons to recalibrate, none where the alignment still fits."""

    figures: dict[str, Any]
    reasons: tuple[str, ...]

    @property
    def recalibrate(self) -> bool:
        """Whether to fit again."""
        return bool(self.reasons)


def measure_drift(alignment: Alignment, texts: Side, images: Side | None = None) -> Drift:
    """Compare the stored statistics with those of new `texts`, and of new `images` where there are any.

    A mean's shift is given in units of its standard error √(T/n + T'/n'), so that 1 is what chance leaves. The gap
    is that of the new texts, moved by the stored statistics or by fresh ones, to the newest image mean there is.
    """
    sides = {"text": texts, "image": images} if images else {"text": texts}
    rows = {name: batches_of(side.rows, f"{name}s") for name, side in sides.items()}
    found = {name: summarise(batches)[0] for name, batches in rows.items()}
    figures: dict[str, Any] = {"method": alignment.method, "width": alignment.width}
    reasons = []
    for name, side in sides.items():
        alignment.require(width=found[name].width)
        stored_mean, stored_trace, stored_count = _stored(alignment, name)
        count = found[name].count if side.groups is None else effective_number(side.groups)
        error = np.sqrt(stored_trace / stored_count + found[name].trace / count)
        shift = float(np.linalg.norm(found[name].mean - stored_mean))
        ratio = found[name].trace / stored_trace
        figures |= {
            f"n_{name}s": found[name].count,
            f"effective_{name}s": float(count),
            f"{name}_mean_shift": shift,
            f"{name}_mean_shift_in_errors": float(shift / error),
            f"{name}_trace_ratio": float(ratio),
        }
        if not 1 / TRACE_RATIO < ratio < TRACE_RATIO:
            reasons.append(f"the {name}s spread {ratio:.2f} times as wide as those fitted on")
    return _with_gaps(alignment, rows["text"], found, figures, reasons)


def _with_gaps(
    alignment: Alignment, texts: RowBatches, found: dict[str, Moments], figures: dict[str, Any], reasons: list[str]
) -> Drift:
    image_mean = found["image"].mean if "image" in found else alignment.image_mean
    stored = float(np.linalg.norm(aligned_means(alignment, texts)[0] - image_mean))
    raw = float(np.linalg.norm(found["text"].mean - image_mean))
    text_part = alignment.scale**2 * alignment.text_trace
    chance = text_part * (1 / alignment.text_count + 1 / figures["effective_texts"])
    # Without new images both sides of the gap are the stored image mean, and nothing is left to chance.
    if "image" in found:
        chance += found["image"].trace * (1 / alignment.image_count + 1 / figures["effective_images"])
    chance = float(np.sqrt(chance))
    fresh = _fresh(alignment, texts, found)
    figures |= {
        "gap_raw": raw,
        "gap_stored": stored,
        "gap_fresh": float(np.linalg.norm(aligned_means(fresh, texts)[0] - image_mean)),
        "sampling_floor": chance,
    }
    if stored > CHANCE_FACTOR * chance and stored > GAP_SHARE * raw:
        reasons.append(f"the stored statistics leave a gap of {stored:.3g}, where chance would leave {chance:.2g}")
    return Drift(figures | {"recalibrate": bool(reasons), "reasons": list(reasons)}, tuple(reasons))


def _fresh(alignment: Alignment, texts: RowBatches, found: dict[str, Moments]) -> Alignment:
    """The same method with the means and traces found now, stored ones where there are no new images."""
    text, image = found["text"], found.get("image")
    fresh = replace(
        alignment,
        text_mean=text.mean,
        text_trace=text.trace,
        image_mean=image.mean if image else alignment.image_mean,
        image_trace=image.trace if image else alignment.image_trace,
        drift_means=np.empty((0, alignment.width)),
    )
    if RECIPES[alignment.method].scales:
        fresh = replace(fresh, scale=float(np.sqrt(fresh.image_trace / fresh.text_trace)))
    for _ in range(len(alignment.drift_means)):
        fresh = fresh.recentred(aligned_means(fresh, texts)[0])
    return fresh


def _stored(alignment: Alignment, name: str) -> tuple[np.ndarray, float, int]:
    if name == "text":
        return alignment.text_mean, alignment.text_trace, alignment.text_count
    return alignment.image_mean, alignment.image_trace, alignment.image_count
