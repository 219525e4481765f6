"""Do stored statistics still fit? Yes for more of the same, no for what has moved, and the reason is said."""

import numpy as np
import pytest

from gapbridge.align import Alignment, Side, fit, measure_drift
from gapbridge.errors import ArtifactError


def _cloud(rows: int, seed: int, mean: float, spread: float = 0.4) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, 12)) * spread
    made[:, 0] += mean
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def alignment() -> Alignment:
    return fit(_cloud(4000, 0, 1), _cloud(3000, 1, -1))


def test_more_of_the_same_fits(alignment: Alignment) -> None:
    found = measure_drift(alignment, Side(_cloud(4000, 2, 1)), Side(_cloud(3000, 3, -1)))
    assert not found.recalibrate and found.reasons == ()
    assert found.figures["text_mean_shift_in_errors"] == pytest.approx(1, abs=0.6)
    assert found.figures["gap_stored"] < 1.5 * found.figures["sampling_floor"]
    assert found.figures["gap_fresh"] < found.figures["gap_stored"]


def test_texts_that_moved_do_not(alignment: Alignment) -> None:
    found = measure_drift(alignment, Side(_cloud(4000, 2, 0.5)))
    assert found.recalibrate and any("leave a gap" in reason for reason in found.reasons)
    assert found.figures["text_mean_shift_in_errors"] > 5
    assert found.figures["gap_fresh"] < found.figures["gap_stored"] / 10
    assert "n_images" not in found.figures
    spread = alignment.scale**2 * alignment.text_trace
    assert found.figures["sampling_floor"] == pytest.approx(np.sqrt(spread * (1 / 4000 + 1 / 4000)))


def test_texts_that_spread_otherwise_do_not(alignment: Alignment) -> None:
    found = measure_drift(alignment, Side(_cloud(4000, 2, 1, 0.2)))
    assert any("times as wide" in reason for reason in found.reasons)


def test_a_shift_that_is_certain_but_tiny_is_let_be() -> None:
    """With very many rows every shift is certain; what counts is the gap that it leaves."""
    alignment = fit(_cloud(60_000, 0, 1), _cloud(60_000, 1, -1))
    found = measure_drift(alignment, Side(_cloud(60_000, 2, 1.15)))
    assert found.figures["text_mean_shift_in_errors"] > 1.5
    assert found.figures["gap_stored"] > 1.5 * found.figures["sampling_floor"]
    assert not found.recalibrate


def test_rows_of_one_group_are_one_observation(alignment: Alignment) -> None:
    few = np.repeat(_cloud(40, 7, 1), 100, axis=0)
    rows = measure_drift(alignment, Side(few))
    groups = measure_drift(alignment, Side(few, [str(place // 100) for place in range(4000)]))
    assert rows.recalibrate and not groups.recalibrate
    assert groups.figures["effective_texts"] == pytest.approx(40)


def test_another_width(alignment: Alignment) -> None:
    with pytest.raises(ArtifactError, match="its width is 12, the vectors' 5"):
        measure_drift(alignment, Side(_cloud(50, 0, 1)[:, :5]))
