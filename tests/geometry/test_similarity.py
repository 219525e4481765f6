"""Cosines, their distributions, and what the alignment keeps of a text."""

import numpy as np
import pytest

from gapbridge.geometry.similarity import (
    BINS,
    cosine_correlation,
    histogram,
    js_divergence,
    mean_cosine,
    pair_cosines,
    random_pairs,
)


def _unit(rows: int, seed: int, width: int = 10) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, width))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_pairs_are_of_different_rows_and_depend_on_the_seed_alone() -> None:
    first, second = random_pairs(7, 5000, 3)
    assert (first != second).all() and set(first) == set(second) == set(range(7))
    np.testing.assert_array_equal(random_pairs(7, 5000, 3)[0], first)
    with pytest.raises(ValueError, match="1 rows have no pairs"):
        random_pairs(1, 5, 0)


def test_cosines_of_pairs() -> None:
    rows = _unit(50, 0)
    first, second = random_pairs(50, 300, 1)
    np.testing.assert_allclose(pair_cosines(rows, 1, 300), (rows[first] * rows[second]).sum(axis=1), atol=1e-12)


def test_divergence_at_its_ends() -> None:
    same, other = histogram(np.full(10, 0.5)), histogram(np.full(10, -0.5))
    assert same.sum() == 1 and len(same) == BINS
    assert js_divergence(same, same) == 0
    assert js_divergence(same, other) == pytest.approx(np.log(2))
    half = (same + other) / 2
    expected = (np.log(4 / 3) + 0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2
    assert js_divergence(same, half) == pytest.approx(expected)


def test_what_is_kept() -> None:
    rows = _unit(200, 2)
    turned = rows @ np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    assert mean_cosine(rows, rows) == pytest.approx(1)
    assert mean_cosine(rows, -rows) == pytest.approx(-1)
    assert cosine_correlation(rows, turned, 0) == pytest.approx(1)
    assert abs(cosine_correlation(rows, _unit(200, 3), 0)) < 0.1
