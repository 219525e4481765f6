"""Charts: what is drawn is what was given."""

import re

import numpy as np
import pytest

from gapbridge.report.charts import HEIGHT, WIDTH, Chart, clouds, line_chart
from gapbridge.report.figures import gap_charts, loss_charts, spectrum_charts

from .made_up import losses, plane, spectra


def _points(path: str) -> np.ndarray:
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)])


def _inside(chart: Chart) -> bool:
    points = np.concatenate([_points(mark.path) for mark in chart.marks])
    return bool((points >= 0).all() and (points <= [chart.width, chart.height]).all())


def test_a_falling_line_falls_and_stays_inside() -> None:
    xs = np.arange(1, 2001)
    chart = line_chart("loss", {"training": (xs, 10.0 / xs)}, "step")
    points = _points(chart.marks[0].path)
    assert _inside(chart)
    assert len(points) <= 160
    assert (np.diff(points[:, 0]) > 0).all()
    assert (np.diff(points[:, 1]) > 0).all()  # in a picture, down is up


def test_ticks_stand_where_their_values_do() -> None:
    chart = line_chart("t", {"a": ([0.0, 100.0], [0.01, 10.0])}, "step")
    start, end = _points(chart.marks[0].path)
    for tick in chart.x_ticks:
        assert tick.at == pytest.approx(start[0] + float(tick.label) / 100 * (end[0] - start[0]), abs=0.2)
    for tick in chart.y_ticks:
        share = (np.log10(float(tick.label)) + 2) / 3
        assert tick.at == pytest.approx(start[1] + share * (end[1] - start[1]), abs=0.2)
    assert len(chart.x_ticks) >= 3
    assert len(chart.y_ticks) >= 3


@pytest.mark.parametrize("ys", [[0.5], [0.5, 0.5, 0.5]], ids=["one value", "all the same"])
def test_flat_lines_are_drawn(ys: list[float]) -> None:
    assert _inside(line_chart("flat", {"a": (list(range(len(ys))), ys)}, "step"))


def test_clouds_share_one_scale() -> None:
    near, far = np.zeros((5, 2)), np.full((5, 2), 8.0)
    before, after = clouds(("before", "after"), [{"a": near, "b": far}, {"a": near, "b": near}])
    assert before.marks[0].path == after.marks[0].path == after.marks[1].path
    assert before.marks[1].path != before.marks[0].path
    assert _inside(before)
    assert before.width == HEIGHT < WIDTH


def test_the_gap_is_shown_before_and_after() -> None:
    before, after = gap_charts(plane())

    def distance(chart: Chart) -> float:
        first, second = (_points(mark.path)[:, 0].mean() for mark in chart.marks)
        return abs(first - second)

    assert distance(before) > 50
    assert distance(after) < 5
    assert [mark.name for mark in after.marks] == ["images", "texts, aligned"]


def test_eigenvalues_that_are_rounding_are_left_out() -> None:
    before, after = spectrum_charts(spectra())
    assert len(_points(before.marks[0].path)) == 59
    assert _inside(after)


def test_losses_of_the_stages_that_trained_in_their_order() -> None:
    charts = loss_charts({"instruct": losses(), "encoder": losses().drop("heldout"), "llm": losses(0)})
    assert [chart.title.split()[0] for chart in charts] == ["Encoder", "Stage"]
    assert [[mark.name for mark in chart.marks] for chart in charts] == [["training"], ["training", "held out"]]
    assert len(_points(charts[1].marks[1].path)) == 10
