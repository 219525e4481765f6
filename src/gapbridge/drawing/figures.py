"""The pictures of the gap: spectra, and both clouds in a plane before and after. Arrays in, matplotlib figures out.

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

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
    x, y = points.T
    axes.scatter(x, y, s=5, color=COLOURS[name], marker=MARKERS[name], alpha=0.3, linewidths=0, label=LABELS[name])


def _centre(axes: Axes, points: np.ndarray, name: str) -> None:
    x, y = points.mean(axis=0)
    axes.scatter(x, y, s=110, color=COLOURS[name], marker=MARKERS[name], edgecolors="white", linewidths=1.5)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def draw_cosines(cosines: Mapping[str, np.ndarray]) -> Figure:
    """Shares of pairwise cosines in equal bins from −1 to 1 for each of image, text and aligned."""
    figure = Figure(figsize=(6, 4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    seen = np.zeros(len(next(iter(cosines.values()))), dtype=bool)
    for side, shares in cosines.items():
        edges = np.linspace(-1, 1, len(shares) + 1)
        axes.stairs(shares, edges, color=COLOURS[side], linestyle=DASHES[side], linewidth=2, label=LABELS[side])
        seen |= shares > 0
    centres = (edges[1:] + edges[:-1]) / 2
    axes.set_xlim(centres[seen].min() - 0.02, centres[seen].max() + 0.02)
    axes.set(
        xlabel="cosine of two vectors of one kind", ylabel="share of pairs", title="How alike vectors of one kind are"
    )
    _tidy(axes)
    axes.legend(frameon=False)
    return figure


def draw_neighbours(methods: Mapping[str, Mapping[str, float]]) -> Figure:
    """One point a method: how far it mixes the modalities against how much of its neighbourhood a text keeps."""
    figure = Figure(figsize=(6, 4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axes.annotate("full mixing", (0.02, 0.5), xycoords=("axes fraction", "data"), va="bottom", color="0.4", fontsize=8)
    for (name, figures), marker in zip(methods.items(), cycle("osDv^*PX"), strict=False):
        colour = COLOURS["aligned"] if name == "realign" else COLOURS["text"] if name == "none" else "0.45"
        place = figures["neighbour_overlap"], figures["mixing_rate"]
        axes.scatter(*place, s=80, color=colour, marker=marker, alpha=0.8, linewidths=0, zorder=3, label=name)
    axes.set(
        xlabel="share of its nearest texts that a text keeps", ylabel="neighbours of the other kind", ylim=(-0.03, 0.55)
    )
    axes.set_title("Mixed with the images, and still in its place: top right is best", fontsize=10)
    _tidy(axes)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def draw_methods(methods: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]) -> Figure:
    """One small panel a figure of `labels`, a bar for each aligner; figures that no aligner has are left out."""
    shown = [key for key in labels if any(key in one for one in methods.values())]
    columns = 3
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(9, 1.9 * rows), dpi=_DPI, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = list(methods)
    colours = [{"none": COLOURS["text"], "realign": COLOURS["aligned"]}.get(name, "0.6") for name in names]
    for axes, key in zip(panels, shown, strict=False):
        axes.bar(names, [methods[name].get(key, 0.0) for name in names], color=colours, width=0.7)
        axes.set_title(labels[key], fontsize=9)
        axes.tick_params(axis="x", labelrotation=40, labelsize=7)
        axes.tick_params(axis="y", labelsize=7)
        _tidy(axes)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def draw_sizes(sizes: Sequence[int], means: Sequence[float], spreads: Sequence[float], needed: int) -> Figure:
    """The held-out gap over the number of rows a side that were fitted on, with its spread over the draws."""
    figure = Figure(figsize=(6, 4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(sizes, means, yerr=spreads, color=COLOURS["aligned"], marker="o", linewidth=2, capsize=4)
    axes.axvline(needed, color="0.5", linestyle="--", linewidth=1)
    axes.annotate(f"{needed:,} are enough ", (needed, max(means)), color="0.3", fontsize=9, va="top", ha="right")
    axes.set(xscale="log", ylim=(0, None), xlabel="rows a side to fit on", ylabel="gap on rows kept out")
    axes.set_title("How many rows a fit needs")
    _tidy(axes)
    return figure


def draw_domains(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """The gap left on each set (columns) by the statistics of each set (rows)."""
    names = list(table)
    values = np.array([[table[fitted][applied] for applied in names] for fitted in names])
    side = 2.2 + 0.9 * len(names)
    figure = Figure(figsize=(side + 1.2, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(values, cmap="YlOrRd", vmin=0)
    for row, column in np.ndindex(values.shape):
        dark = values[row, column] > 0.6 * values.max()
        axes.text(
            column, row, f"{values[row, column]:.3f}", ha="center", va="center", color="white" if dark else "black"
        )
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="applied to", ylabel="statistics of", title="The gap left across domains")
    return figure


def draw_trajectory(rows: Sequence[Mapping[str, float]]) -> Figure:
    """The four panels of the paper's Figure 1 for one training: rows as `trajectory.trace` gives them."""
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(9.5, 6.5), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flat

    def lines(axes: Axes, title: str, **named: tuple[str, str, str]) -> None:
        for name, (label, colour, dash) in named.items():
            axes.plot(steps, [row[name] for row in rows], color=colour, linestyle=dash, linewidth=2, label=label)
        axes.set_title(title, fontsize=10)
        _tidy(axes)
        axes.legend(frameon=False, fontsize=8)

    blue, red, green = COLOURS["image"], COLOURS["text"], COLOURS["aligned"]
    lines(
        next(panels), "a: gradients in V, beside the bound sin θ",
        leakage=("gradient energy in V", blue, "-"), leakage_bound=("sin θ of the moving frame", red, "--"),
    )  # fmt: skip
    lines(
        next(panels), "b: the bias in V",
        passive_bias_drift=("drift from the reference", blue, "-"),
        passive_bias_cosine=("cosine to the snapshot before", green, "--"),
    )  # fmt: skip
    condition = next(panels)
    lines(
        condition, "c: how uneven the residuals are",
        principal_condition=("λ max / λ mean in U", blue, "-"), passive_condition=("λ max / λ mean in V", red, "--"),
    )  # fmt: skip
    lines(next(panels), "d: the bias in V against V's first direction", passive_angle=("angle, degrees", blue, "-"))
    for axes in (figure.axes[2], figure.axes[3]):
        axes.set_xlabel("training step")
    figure.axes[3].set_ylim(0, 92)
    return figure


def draw_lengths(groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """Gap, effective rank and (where it is known) share of truncated texts for short and long captions."""
    names = list(groups)
    labels = {"gap_before": "gap before", "effective_rank": "effective rank", "truncated": "share cut off"}
    shown = [key for key in labels if key in groups[names[0]]]
    figure = Figure(figsize=(2.8 * len(shown), 3.4), dpi=_DPI, layout="constrained")
    for axes, key, label in zip(figure.subplots(1, len(shown)), shown, (labels[key] for key in shown), strict=True):
        axes.bar(names, [groups[name][key] for name in names], color=COLOURS["text"], width=0.55)
        axes.set(title=label, ylim=(0, None))
        _tidy(axes)
    return figure
