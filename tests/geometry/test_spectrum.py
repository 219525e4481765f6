"""Spectra whose shape is known beforehand."""

import numpy as np
import pytest

from gapbridge.geometry.spectrum import condition_number, covariance_spectrum, effective_rank, power_law_exponent


def test_spectrum_of_known_axes() -> None:
    """Two opposite points on each axis: variance length² · 2/(2d) along it."""
    lengths = np.array([3.0, 2.0, 1.0])
    rows = np.concatenate([np.diag(lengths), -np.diag(lengths)]) + 5
    np.testing.assert_allclose(covariance_spectrum(rows), lengths**2 / 3, atol=1e-12)


def test_spectrum_adds_up_to_the_trace_and_is_sorted() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    spectrum = covariance_spectrum(rows)
    assert spectrum.sum() == pytest.approx(rows.var(axis=0, dtype=np.float64).sum(), rel=1e-12)
    assert (np.diff(spectrum) <= 0).all() and (spectrum >= 0).all()


@pytest.mark.parametrize(("spectrum", "rank"), [([2, 2, 2, 2], 4), ([7, 0, 0], 1), ([1, 1, 0, 0], 2)])
def test_effective_rank(spectrum: list[float], rank: float) -> None:
    assert effective_rank(np.array(spectrum, dtype=float)) == pytest.approx(rank)


@pytest.mark.parametrize("exponent", [0.5, 1.33, 1.83])
def test_power_law(exponent: float) -> None:
    spectrum = 3 * np.arange(1, 101) ** -exponent
    assert power_law_exponent(spectrum) == pytest.approx(exponent)
    with_rounding = np.concatenate([spectrum, [1e-15, 0.0]])
    assert power_law_exponent(with_rounding) == pytest.approx(exponent)


def test_condition_number_leaves_rounding_out() -> None:
    assert condition_number(np.array([8.0, 4.0, 2.0, 1e-14, 0.0])) == pytest.approx(4)


def test_zeros_have_no_shape() -> None:
    for figure in (effective_rank, power_law_exponent, condition_number):
        with pytest.raises(ValueError, match=r"zeros|two eigenvalues"):
            figure(np.zeros(4))
