"""Figures hold what they were given, and the same arrays give the same bytes."""

import io

import numpy as np
from matplotlib.figure import Figure

from gapbridge.drawing.figures import draw_gap, draw_spectra

SIDES = ("image", "text", "aligned")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _spectra_figure() -> Figure:
    spectra = {side: np.append(np.arange(1, 31) ** -1.5, 0.0) for side in SIDES}
    return draw_spectra(spectra, dict.fromkeys(SIDES, 1.5))


def _gap_figure() -> Figure:
    random = np.random.default_rng(0)
    points = {side: random.normal(size=(40, 2)) + place for place, side in enumerate(SIDES)}
    return draw_gap(points, 0.8513, 0.0014)


def test_spectra_are_labelled_with_their_exponents() -> None:
    (axes,) = _spectra_figure().axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["images (α = 1.50)", "texts (α = 1.50)", "aligned texts (α = 1.50)"]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_both_panels_share_their_axes_and_name_the_gap() -> None:
    before, after = _gap_figure().axes
    assert (before.get_title(), after.get_title()) == ("before: gap 0.851", "after: gap 0.0014")
    assert before.get_xlim() == after.get_xlim() and before.get_ylim() == after.get_ylim()


def test_the_same_arrays_give_the_same_bytes() -> None:
    for draw in (_spectra_figure, _gap_figure):
        assert _png(draw()) == _png(draw())
