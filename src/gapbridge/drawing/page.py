"""The page about a gap: every picture with one sentence that says what is good and what is bad, and all figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge.drawing.html import data_uri, environment, style


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file, its title, and how to read it."""

    file: str
    title: str
    reading: str


PICTURES = (
    Picture(
        "gap.png",
        "Both clouds, before and after",
        "Good: the two clouds lie on each other on the right; bad: they still stand apart.",
    ),
    Picture(
        "spectra.png",
        "How the vectors spread",
        "Good: the aligned texts keep the texts' slope and reach the images' height; bad: a flat line, which is noise.",
    ),
    Picture(
        "cosines.png",
        "How alike vectors of one kind are",
        "Good: the aligned texts' curve covers that of the images; bad: a narrow peak of its own.",
    ),
    Picture(
        "neighbours.png",
        "Mixing, and what a text keeps of its neighbourhood",
        "Good: up and to the right; bad: at the bottom both kinds stay apart, on the left texts lose their sense.",
    ),
    Picture(
        "methods.png",
        "Every figure by aligner",
        "Good: a gap near nothing, a trace ratio near 1, neighbours and structure kept; bad: one of them lost.",
    ),
    Picture(
        "sizes.png",
        "How many rows a fit needs",
        "Good: the curve has become flat before it ends; bad: it still falls, so more rows would give a smaller gap.",
    ),
    Picture(
        "domains.png",
        "The gap left across domains",
        "Good: every number is as small as those on the diagonal; bad: a set with large numbers in its column needs "
        "statistics of its own.",
    ),
    Picture(
        "lengths.png",
        "Short and long captions",
        "Good: nothing is cut off and both gaps are alike; bad: long captions lose their ends and lie further away.",
    ),
    Picture(
        "trajectory.png",
        "The gap while the encoder learned",
        "Good: gradients stay in U, the bias in V settles at a right angle to V's spread; bad: it keeps moving.",
    ),
)
"""In the order of the page; those whose file is not there are left out."""

LABELS = {
    "gap": "gap",
    "sampling_floor": "of which chance",
    "trace_ratio": "trace ratio",
    "power_law_exponent": "exponent α",
    "effective_rank": "effective rank",
    "condition_number": "condition number",
    "js_divergence": "JS divergence",
    "mixing_rate": "mixing, k = 20",
    "mixing_from_texts": "mixing from texts",
    "mixing_from_images": "mixing from images",
    "neighbour_overlap": "neighbours kept, k = 10",
    "kept_cosine": "kept cosine Φ",
    "kept_cosine_structure": "kept structure Ψ",
    "spectral_correlation": "spectral correlation",
    "subspace_overlap": "subspace overlap",
    "covariance_discrepancy": "covariance discrepancy",
    "paired_cosine": "cosine of pairs",
    "residual_ratio": "residual of pairs",
    "residual_anisotropy": "its anisotropy",
    "residual_effective_dimension": "its effective dimension",
}
"""The columns of the table of aligners."""


def render(figures: Mapping[str, Any], folder: Path) -> str:
    """The page as HTML that needs nothing else; `figures` is what `gap.json` holds, the pictures lie in `folder`."""
    there = [(picture, data_uri(folder / picture.file)) for picture in PICTURES if (folder / picture.file).exists()]
    methods = figures["methods"]
    shown = [key for key in LABELS if any(key in one for one in methods.values())]
    page: str = (
        environment(Path(__file__).parent)
        .get_template("gap.html")
        .render(style=style(), figures=figures, pictures=there, columns=[(key, LABELS[key]) for key in shown])
    )
    return page
