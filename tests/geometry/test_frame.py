"""The fixed frame: an exact identity, bounds that hold, and figures known from made-up clouds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.geometry.frame import (
    Frame,
    angle_to_first_direction,
    couple,
    decompose,
    effective_condition,
    fit_frame,
    largest_angle_sine,
    leakage,
    phantom_drift,
    profile_correlation,
)


def _pairs(seed: int, rows: int = 60, width: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    stretch = np.linspace(2, 0.1, width)
    images = random.normal(size=(rows, width)) * stretch + random.normal(size=width)
    return images, images * 0.7 + random.normal(size=(rows, width)) * stretch + random.normal(size=width)


@given(st.integers(0, 10_000), st.integers(2, 50), st.integers(1, 12), st.floats(0.05, 1.0))
def test_the_parts_add_up_in_any_frame_on_any_data(seed: int, rows: int, width: int, energy: float) -> None:
    random = np.random.default_rng(seed)
    images, texts = random.normal(size=(2, rows, width)) * 10.0 ** random.integers(-3, 3)
    frame = fit_frame(*_pairs(seed, rows, width), energy)
    parts = decompose(frame, images, texts)
    scale = np.abs(images - texts).max()
    np.testing.assert_allclose(parts.total(), images - texts, atol=1e-10 * scale)
    np.testing.assert_allclose(parts.principal_residual.mean(axis=0), 0, atol=1e-12 * scale)
    inner = np.einsum("nd,nd->n", parts.principal_residual, parts.passive_residual)
    np.testing.assert_allclose(inner, 0, atol=1e-12 * scale**2 * width)
    assert abs(parts.principal_bias @ parts.passive_bias) <= 1e-12 * scale**2 * width


def test_the_rank_is_the_fewest_directions_with_the_energy() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(4000, 4)) * np.sqrt([6, 2, 1, 1])
    for energy, rank in ((0.5, 1), (0.75, 2), (0.85, 3), (1.0, 4)):
        assert fit_frame(rows, rows, energy).rank == rank
    with pytest.raises(ValueError, match="energy 0"):
        fit_frame(rows, rows, 0)
    with pytest.raises(ValueError, match="no frame"):
        fit_frame(np.ones((5, 3)), np.ones((5, 3)))


@given(st.integers(0, 10_000))
def test_gradients_inside_the_moving_frame_leak_no_more_than_its_sine(seed: int) -> None:
    """Lemma B.7, for any two frames of one rank."""
    random = np.random.default_rng(seed)
    frames = [Frame(np.linalg.qr(random.normal(size=(7, 7)))[0], 3) for _ in range(2)]
    inside = random.normal(size=(20, 3)) @ frames[1].principal.T
    assert leakage(frames[0], inside) <= largest_angle_sine(*frames) + 1e-12


def test_leakage_and_angle_at_their_ends() -> None:
    frame = Frame(np.eye(5), 2)
    assert leakage(frame, np.eye(5)[:2]) == 0
    assert leakage(frame, np.eye(5)[2:]) == pytest.approx(1)
    assert leakage(frame, np.eye(5)[[0, 4]]) == pytest.approx(np.sqrt(0.5))
    assert leakage(frame, np.zeros((3, 5))) == 0
    assert largest_angle_sine(frame, frame) == pytest.approx(0, abs=1e-7)
    assert largest_angle_sine(frame, Frame(np.eye(5)[:, ::-1], 2)) == 1


def test_anisotropy_profiles_and_angles() -> None:
    assert effective_condition(np.diag([4.0, 1.0, 1.0])) == 2
    assert effective_condition(np.zeros((3, 3))) == 0
    assert profile_correlation(np.diag([3.0, 2.0, 1.0]), np.diag([2.0, 6.0, 4.0])) == pytest.approx(1)
    assert profile_correlation(np.eye(3), np.diag([3.0, 2.0, 1.0])) == 0
    spread = np.diag([1.0, 9.0, 1.0])
    assert angle_to_first_direction(np.array([0.0, -2.0, 0.0]), spread) == pytest.approx(0)
    assert angle_to_first_direction(np.array([0.0, 1.0, 1.0]), spread) == pytest.approx(45)
    assert angle_to_first_direction(np.zeros(3), spread) == 90


def test_coupling_finds_what_is_coupled_and_nothing_else() -> None:
    random = np.random.default_rng(1)
    frame = Frame(np.eye(6), 3)
    inputs, other = random.normal(size=(2000, 3)), random.normal(size=(2000, 3))
    tied = np.concatenate([inputs, 0.5 * inputs[:, ::-1]], axis=1)
    found = couple(decompose(frame, tied, np.zeros_like(tied)), frame)
    assert found.r_squared == pytest.approx(1, abs=1e-4)
    assert found.spectral_norm == pytest.approx(0.5, rel=1e-2)
    loose = np.concatenate([inputs, other], axis=1)
    assert couple(decompose(frame, loose, np.zeros_like(loose)), frame).r_squared < 0.01


def test_phantom_drift_follows_its_second_order_prediction() -> None:
    """The remainder is of third order, so a tenth of the spread leaves about a thousandth of the error."""
    random = np.random.default_rng(2)
    direction = np.r_[1.0, np.zeros(7)]
    noise = random.normal(size=(40_000, 8)) * np.linspace(1, 0.2, 8) @ np.linalg.qr(random.normal(size=(8, 8)))[0]
    errors = [phantom_drift(direction + size * noise).error for size in (0.1, 0.01)]
    assert errors[0] < 0.2 and errors[1] < errors[0] / 5
    isotropic = np.concatenate([np.eye(8), -np.eye(8)]) * 0.05
    assert phantom_drift(direction + isotropic).tangential == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="mean of zero"):
        phantom_drift(np.concatenate([noise[:5], -noise[:5]]) * 0)
