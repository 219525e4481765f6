"""Neighbours: exact ones, those of the graph, and what mixing and overlap make of them."""

import numpy as np
import pytest

from gapbridge.geometry import neighbours
from gapbridge.geometry.neighbours import mean_overlap, mixing, nearest, overlap


def _unit(rows: int, seed: int, width: int = 12, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    made = random.normal(size=(rows, width))
    made[:, 0] += shift
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_nearest_is_what_sorting_all_cosines_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _unit(90, 0)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines, axis=1)[:, :7]
    np.testing.assert_array_equal(nearest(rows, 7), expected)
    monkeypatch.setattr(neighbours, "_BLOCK_NUMBERS", 90 * 11)
    np.testing.assert_array_equal(nearest(rows, 7), expected)


def test_the_graph_finds_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _unit(800, 1)
    exact = nearest(rows, 10)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 100)
    found = nearest(rows, 10)
    assert mean_overlap(exact, found) > 0.99
    assert not (found == np.arange(800)[:, None]).any()


def test_mixing_at_its_ends() -> None:
    apart = mixing(_unit(150, 2, shift=30), _unit(150, 3, shift=-30))
    assert (apart.rate, apart.from_texts, apart.from_images) == (0, 0, 0)
    mixed = mixing(_unit(1500, 4), _unit(1000, 5))
    assert mixed.rate == pytest.approx(0.5, abs=0.02)
    assert mixed.from_texts == pytest.approx(1, abs=0.02) and mixed.from_images == pytest.approx(1, abs=0.02)


def test_overlap() -> None:
    rows = _unit(60, 6)
    turned = rows @ np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    assert overlap(rows, turned) == pytest.approx(1, abs=0.02)
    assert overlap(rows, _unit(60, 7)) < 0.4
    assert mean_overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 9]])) == 0.75


@pytest.mark.parametrize("k", [0, 5, 9])
def test_too_few_rows(k: int) -> None:
    with pytest.raises(ValueError, match="5 rows have no"):
        nearest(_unit(5, 0), k)
