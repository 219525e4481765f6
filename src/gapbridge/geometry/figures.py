"""The pictures of the gap: spectra, and both clouds in a plane before and after. Arrays in, matplotlib figures out.

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"image": "#1b6ca8", "text": "#d1495b", "aligned": "#2e933c"}
LABELS = {"image": "images", "text": "texts", "aligned": "aligned texts"}
MARKERS = {"image": "o", "text": "s", "aligned": "^"}
DASHES = {"image": "-", "text": "--", "aligned": ":"}
_DPI = 150


def draw_spectra(spectra: Mapping[str, np.ndarray], exponents: Mapping[str, float]) -> Figure:
    """Eigenvalues (d,) by rank for each of image, text and aligned, on logarithmic axes, with their exponents."""
    figure = Figure(figsize=(6, 4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for side, spectrum in spectra.items():
        ranks = np.arange(1, len(spectrum) + 1)
        label = f"{LABELS[side]} (α = {exponents[side]:.2f})"
        shown = np.where(spectrum > 0, spectrum, np.nan)
        axes.loglog(ranks, shown, color=COLOURS[side], linestyle=DASHES[side], linewidth=2, label=label)
    largest = max(spectrum.max() for spectrum in spectra.values())
    axes.set_ylim(bottom=largest * 1e-7)
    axes.set(xlabel="rank", ylabel="eigenvalue of the covariance", title="How the vectors spread")
    _tidy(axes)
    axes.legend(frameon=False)
    return figure


def draw_gap(points: Mapping[str, np.ndarray], gap_before: float, gap_after: float) -> Figure:
    """The points (n, 2) of image, text and aligned in the gap's plane: before on the left, after on the right."""
    figure = Figure(figsize=(9, 4.2), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, side, title, gap in zip(
        panels, ("text", "aligned"), ("before", "after"), (gap_before, gap_after), strict=True
    ):
        for name in ("image", side):
            _cloud(axes, points[name], name)
        for name in ("image", side):
            _centre(axes, points[name], name)
        axes.set(title=f"{title}: gap {gap:.3g}", xlabel="from the image mean to the text mean")
        _tidy(axes)
        # Between the clouds before, beside them after: the middle is free in both panels.
        for handle in axes.legend(frameon=False, loc="center", markerscale=2.5).legend_handles:
            handle.set_alpha(1)
    panels[0].set_ylabel("main direction of spread")
    return figure


def _cloud(axes: Axes, points: np.ndarray, name: str) -> None:
    axes.scatter(*points.T, s=5, color=COLOURS[name], marker=MARKERS[name], alpha=0.3, linewidths=0, label=LABELS[name])


def _centre(axes: Axes, points: np.ndarray, name: str) -> None:
    axes.scatter(
        *points.mean(axis=0), s=110, color=COLOURS[name], marker=MARKERS[name], edgecolors="white", linewidths=1.5
    )


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
