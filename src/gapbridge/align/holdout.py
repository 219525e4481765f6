"""Measure an alignment on groups that it was not fitted on, beside what chance alone would leave.

Shapes: `n` rows, `m` rows of the other side, `d` width.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.fit import C3_NOISE, aligned_means, batches_of, from_moments, summarise
from gapbridge.align.methods import RECIPES, canonical_method
from gapbridge.align.moments import Moments
from gapbridge.align.rows import RowBatches, Rows
from gapbridge.errors import InputError


@dataclass(frozen=True)
class Side:
    """The vectors of one modality, (n, d), and the group of every row; a group never crosses the split.

    Without `groups` each row is a group of its own; then `count` says how many rows there are.
    """

    rows: Rows | RowBatches
    groups: Sequence[str] | None = None
    count: int | None = None

    @property
    def size(self) -> int:
        """How many rows there are, bad ones too. Raises ValueError where nothing says so."""
        if self.groups is not None:
            return len(self.groups)
        if self.count is not None:
            return self.count
        if isinstance(self.rows, np.ndarray):
            return len(self.rows)
        raise ValueError("a side of batches without groups needs its count")


@dataclass(frozen=True)
class Options:
    """How to fit: see `fit`; `holdout` is the share of groups to keep out."""

    method: str = "realign"
    holdout: float = 0.1
    seed: int = 0
    centroid_iterations: int = 1
    noise: float = C3_NOISE


def fit_held_out(texts: Side, images: Side, options: Options = Options()) -> tuple[Alignment, dict[str, Any]]:
    """Fit on all but `holdout` of the groups; return the alignment and its figures (docs/method.md).

    `gap_before` and `gap_after` are of the rows fitted on; `gap_heldout` and `sampling_floor` are None where
    nothing is held out. More than one centroid iteration ends early, where the held-out gap stops falling.
    Raises InputError where a side has too few groups or rows to split, or no good row among those held out.
    """
    method = canonical_method(options.method)
    recipe = RECIPES[method]
    text, image = _Split(texts, "texts", options), _Split(images, "images", options)
    text_moments = summarise(text.rows, text.fitted, covariance=recipe.whitens)[0]
    masks = (image.fitted,) if image.held is None else (image.fitted, image.held)
    image_moments, *image_held = summarise(image.rows, *masks, covariance=recipe.whitens)
    for side in (text, image):
        side.demand_held_out()
    alignment = from_moments(
        text_moments,
        image_moments,
        method,
        noise=options.noise,
        seed=options.seed,
        off_unit=(text.rows.off_unit, image.rows.off_unit),
    )
    measured = _recentred(alignment, text, next(iter(image_held), None), options.centroid_iterations * recipe.recentres)
    alignment = measured.alignment
    return alignment, {
        "method": method,
        "n_texts": alignment.text_count,
        "n_images": alignment.image_count,
        "width": alignment.width,
        "text_trace": alignment.text_trace,
        "image_trace": alignment.image_trace,
        "scale": alignment.scale,
        "centroid_iterations": len(alignment.drift_means),
        "gap_before": float(np.linalg.norm(alignment.text_mean - alignment.image_mean)),
        "gap_after": measured.gap,
        "gap_heldout": measured.heldout,
        "sampling_floor": _floor(alignment, text, image),
        "off_unit_texts": alignment.text_off_unit,
        "off_unit_images": alignment.image_off_unit,
        "bad_texts": len(text.rows.bad),
        "bad_images": len(image.rows.bad),
        "effective_texts": text.effective_fitted,
        "effective_images": image.effective_fitted,
        "effective_texts_heldout": text.effective_held,
        "effective_images_heldout": image.effective_held,
    }


def held_out_groups(groups: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Mask (n,) of the rows whose group is held out: `fraction` of the groups, at least one, chosen by hash.

    A group's rank depends on `seed` and its name alone, so that both sides agree about it.
    """
    distinct = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    held = set(distinct[: max(1, round(fraction * len(distinct)))]) if fraction > 0 else set()
    return np.fromiter((group in held for group in groups), dtype=bool, count=len(groups))


def held_out_rows(count: int, fraction: float, seed: int, name: str) -> np.ndarray:
    """Mask (n,) of held-out rows where each is a group of its own: `fraction` of them, at least one, by chance."""
    mask = np.zeros(count, dtype=bool)
    if fraction > 0 and count:
        chance = np.random.default_rng([seed, *name.encode()])
        mask[chance.permutation(count)[: max(1, round(fraction * count))]] = True
    return mask


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


class _Split:
    """One side, walked as a whole, with masks (n,) of what is fitted on and what is held out; None is everything."""

    def __init__(self, side: Side, name: str, options: Options) -> None:
        fraction = options.holdout
        if not 0 <= fraction < 1:
            raise InputError(f"holdout {fraction}: must be 0 or more and less than 1")
        self.rows, self.groups = batches_of(side.rows, name), side.groups
        self.fitted: np.ndarray | None = None
        self.held: np.ndarray | None = None
        if fraction > 0:
            if side.groups is None:
                self.held = held_out_rows(side.size, fraction, options.seed, name)
            else:
                self.held = held_out_groups(side.groups, fraction, options.seed)
            self.fitted = ~self.held
            if self.fitted.sum() < 2:
                groups = side.size if side.groups is None else len(set(side.groups))
                raise InputError(f"{name}: too few groups ({groups}) to hold {fraction:g} of them out")

    @property
    def effective_fitted(self) -> float:
        """Effective number of the rows fitted on, after a walk."""
        return self._effective(self.rows.good(self.fitted))

    @property
    def effective_held(self) -> float | None:
        """Effective number of the rows held out, after a walk; None where nothing is."""
        return None if self.held is None else self._effective(self.rows.good(self.held))

    def demand_held_out(self) -> None:
        """After a walk: raise InputError where every row held out was bad, so that there is nothing to measure on."""
        if self.held is not None and not self.rows.good(self.held).any():
            count = int(self.held.sum())
            raise InputError(f"{self.rows.name}: all {count} rows held out are bad; hold more out, or clean the rows")

    def _effective(self, mask: np.ndarray) -> float:
        return float(mask.sum()) if self.groups is None else effective_number(list(compress(self.groups, mask)))


class _Measured(NamedTuple):
    alignment: Alignment
    drift_mean: np.ndarray
    """(d,) where it leaves the texts fitted on."""
    gap: float
    """In sample."""
    heldout: float | None


def _recentred(alignment: Alignment, text: _Split, image_held: Moments | None, iterations: int) -> _Measured:
    """The alignment with at most that many centroid steps, ended where the held-out gap stops falling."""
    best = _measure(alignment, text, image_held)
    for step in range(iterations):
        found = _measure(best.alignment.recentred(best.drift_mean), text, image_held)
        if step and found.heldout is not None and best.heldout is not None and found.heldout >= best.heldout:
            break
        best = found
    return best


def _measure(alignment: Alignment, text: _Split, image_held: Moments | None) -> _Measured:
    masks = (text.fitted,) if text.held is None else (text.fitted, text.held)
    means = aligned_means(alignment, text.rows, *masks)
    heldout = None if image_held is None else float(np.linalg.norm(means[1] - image_held.mean))
    return _Measured(alignment, means[0], float(np.linalg.norm(means[0] - alignment.image_mean)), heldout)


def _floor(alignment: Alignment, text: _Split, image: _Split) -> float | None:
    if text.effective_held is None or image.effective_held is None:
        return None
    return sampling_floor(
        alignment, (image.effective_fitted, image.effective_held), (text.effective_fitted, text.effective_held)
    )
