"""A diagnosis on disk: every picture with the data it was drawn from, all figures as JSON, and the page."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars
from matplotlib.figure import Figure

from gapbridge import artifacts
from gapbridge.drawing import figures as draw
from gapbridge.drawing import page
from gapbridge.geometry import gap
from gapbridge.geometry.diagnosis import Diagnosis
from gapbridge.geometry.spectrum import power_law_exponent

FIGURES_FILE, PAGE_FILE = "gap.json", "index.html"
WRITTEN = {
    FIGURES_FILE,
    PAGE_FILE,
    *(picture.file for picture in page.PICTURES),
    *(f"{name}.parquet" for name in ("spectra", "plane", "cosines", "methods", "sizes", "trajectory")),
}
"""Every file that may be written."""
SHOWN_POINTS = 4_000
CHANCE = 1.5
"""So many times the floor still counts as chance."""


def verdict(figures: Mapping[str, Any]) -> dict[str, str]:
    """The page's headline and its advice, in words."""
    fit, needed = figures["fit"], figures["rows_needed"]
    before, heldout, floor = fit["gap_before"], fit["gap_heldout"], fit["sampling_floor"]
    if heldout is None:
        headline = f"The gap is {before:.3g}; nothing was held out to see what the alignment leaves of it."
    elif heldout <= CHANCE * floor:
        headline = f"The gap is {before:.3g}, and the alignment closes it down to chance."
    else:
        headline = f"The gap is {before:.3g}; the alignment leaves {heldout:.3g}, more than chance ({floor:.2g})."
    smallest = min(fit["effective_texts"], fit["effective_images"])
    enough = "enough" if smallest >= needed else "too few"
    advice = (
        f"About {needed:,} independent rows a side are needed for chance to move the fit by 1 % of the gap; "
        f"{round(smallest):,} were fitted on, which is {enough}."
    )
    return {"headline": headline, "advice": advice}


def write_diagnosis(
    folder: Path,
    diagnosis: Diagnosis,
    figures: Mapping[str, Any],
    trajectory: Sequence[Mapping[str, float]] = (),
) -> None:
    """Pictures as PNG beside their data as parquet, gap.json with `figures`, and the page.

    `figures` has the keys of `gap_files` and `domains` and `lengths` where they were measured; `trajectory` is what
    `geometry.trajectory.trace` gives.
    """
    exponents = {side: power_law_exponent(spectrum) for side, spectrum in diagnosis.spectra.items()}
    ranks = np.arange(1, len(diagnosis.spectra["image"]) + 1)
    polars.DataFrame({"rank": ranks, **diagnosis.spectra}).write_parquet(folder / "spectra.parquet")
    _save(draw.draw_spectra(diagnosis.spectra, exponents), folder / "spectra.png")
    origin, axes = gap.gap_plane(diagnosis.clouds["text"], diagnosis.clouds["image"])
    points = {side: gap.in_plane(rows[:SHOWN_POINTS], origin, axes) for side, rows in diagnosis.clouds.items()}
    frames = [polars.DataFrame({"across": at[:, 0], "along": at[:, 1], "side": side}) for side, at in points.items()]
    polars.concat(frames).write_parquet(folder / "plane.parquet")
    methods = diagnosis.methods
    _save(draw.draw_gap(points, methods["none"]["gap"], methods[diagnosis.method]["gap"]), folder / "gap.png")
    low = np.linspace(-1, 1, len(diagnosis.cosines["image"]) + 1)[:-1]
    polars.DataFrame({"from": low, **diagnosis.cosines}).write_parquet(folder / "cosines.parquet")
    _save(draw.draw_cosines(diagnosis.cosines), folder / "cosines.png")
    polars.DataFrame([{"method": name, **one} for name, one in methods.items()]).write_parquet(
        folder / "methods.parquet"
    )
    _save(draw.draw_neighbours(methods), folder / "neighbours.png")
    _save(draw.draw_methods(methods, page.LABELS), folder / "methods.png")
    polars.DataFrame([asdict(point) for point in diagnosis.sizes]).write_parquet(folder / "sizes.parquet")
    sizes = [(point.rows, point.mean, point.spread) for point in diagnosis.sizes]
    rows, means, spreads = zip(*sizes, strict=True)
    _save(draw.draw_sizes(rows, means, spreads, diagnosis.rows_needed), folder / "sizes.png")
    if figures.get("domains"):
        _save(draw.draw_domains(figures["domains"]), folder / "domains.png")
    if figures.get("lengths"):
        _save(draw.draw_lengths(figures["lengths"]), folder / "lengths.png")
    if trajectory:
        polars.DataFrame(trajectory).write_parquet(folder / "trajectory.parquet")
        _save(draw.draw_trajectory(trajectory), folder / "trajectory.png")
    told = {**figures, **verdict(figures)}
    artifacts.write_json(folder / FIGURES_FILE, told)
    artifacts.write_bytes(folder / PAGE_FILE, page.render(told, folder).encode())


def _save(figure: Figure, path: Path) -> None:
    """A PNG without the name and version of the program that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    artifacts.write_bytes(path, buffer.getvalue())
