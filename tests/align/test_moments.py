"""Moments: the same as two-pass float64 formulas, whatever the batches and their order."""

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.align import Moments


def _moments(rows: np.ndarray, covariance: bool = False) -> Moments:
    return Moments(rows.shape[1], covariance).update(rows)


def _spread_rows(rows: int, seed: int, offset: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 5)) * np.arange(1, 6) + offset


def test_equal_the_two_pass_formulas() -> None:
    rows = _spread_rows(200, 0)
    moments = _moments(rows, covariance=True)
    assert moments.count == 200
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), atol=1e-12)
    assert moments.trace == pytest.approx(rows.var(axis=0).sum(), rel=1e-12)


@given(st.lists(st.integers(0, 60), max_size=4), st.booleans())
def test_batches_do_not_matter(cuts: list[int], covariance: bool) -> None:
    rows = _spread_rows(60, 1)
    moments = Moments(5, covariance)
    for batch in np.split(rows, sorted(cuts)):
        moments.update(batch)
    whole = _moments(rows, covariance)
    assert moments.count == whole.count
    np.testing.assert_allclose(moments.mean, whole.mean, atol=1e-12)
    np.testing.assert_allclose(moments.variance, whole.variance, atol=1e-12)


def test_merge_order_does_not_matter() -> None:
    parts = [_moments(_spread_rows(rows, seed), True) for seed, rows in enumerate((1, 7, 300, 2))]
    results = []
    for order in itertools.permutations(parts):
        left, *rest = order
        for part in rest:
            left = left.merge(part)
        results.append(left)
    first = results[0]
    assert first.count == 310
    for other in results[1:]:
        np.testing.assert_allclose(other.mean, first.mean, atol=1e-12)
        np.testing.assert_allclose(other.covariance, first.covariance, atol=1e-12)


def test_merge_leaves_its_parts_alone() -> None:
    left, right = _moments(_spread_rows(10, 0)), _moments(_spread_rows(10, 1))
    before = left.mean.copy()
    left.merge(right)
    assert left.count == 10
    np.testing.assert_array_equal(left.mean, before)


def test_a_large_mean_costs_no_precision() -> None:
    rows = _spread_rows(1000, 2)
    far = Moments(5)
    for batch in np.split(rows + 1e6, 10):
        far.update(batch)
    assert far.trace == pytest.approx(rows.var(axis=0).sum(), rel=1e-8)


def test_float32_rows_are_summed_in_float64() -> None:
    rows = np.full((200_000, 1), 0.1, dtype=np.float32)
    assert _moments(rows).mean[0] == pytest.approx(float(np.float32(0.1)), rel=1e-13)


def test_unit_rows_have_trace_one_minus_squared_mean() -> None:
    rows = _spread_rows(100, 3)
    moments = _moments(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert moments.trace == pytest.approx(1 - moments.mean @ moments.mean, abs=1e-14)


def test_wrong_uses_are_refused() -> None:
    with pytest.raises(ValueError, match="width 5 cannot take"):
        Moments(5).update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments(5).merge(Moments(5, covariance=True))
    with pytest.raises(ValueError, match="covariance=True"):
        _ = Moments(5).covariance


def test_half_a_million_rows_in_batches_of_any_size() -> None:
    """float64 keeps twelve digits, whatever the batches and the order of the parts."""
    rows = np.random.default_rng(0).normal(size=(500_000, 4)) * [1, 0.1, 0.01, 1e-3] + [3, -2, 1, 0.5]
    whole = Moments(4).update(rows)
    for size in (997, 65_536):
        parts = [Moments(4).update(rows[start : start + size]) for start in range(0, len(rows), size)]
        for order in (parts, parts[::-1]):
            merged = reduce(Moments.merge, order)
            np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
            np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-12)
            assert merged.trace == pytest.approx(whole.trace, rel=1e-12)
