"""Covariances compared, and what is left between the vectors of a pair."""

import numpy as np
import pytest

from gapbridge.geometry.shape import likeness, pair_residual


def test_a_cloud_is_like_itself_and_scale_is_seen_by_the_discrepancy_alone() -> None:
    covariance = np.diag([5.0, 3.0, 1.0, 0.5])
    same = likeness(covariance, covariance, 2)
    assert (same.spectral_correlation, same.subspace_overlap) == (pytest.approx(1), pytest.approx(1))
    assert (same.subspace_chance, same.directions, same.covariance_discrepancy) == (0.5, 2, 0)
    larger = likeness(covariance, 3 * covariance, 2)
    assert larger.spectral_correlation == pytest.approx(1) and larger.covariance_discrepancy == pytest.approx(2)


def test_directions_apart_share_nothing() -> None:
    found = likeness(np.diag([9.0, 8.0, 1.0, 0.5]), np.diag([0.5, 1.0, 8.0, 9.0]), 2)
    assert found.subspace_overlap == pytest.approx(0)
    assert found.spectral_correlation == pytest.approx(1)


def test_random_directions_share_what_chance_gives() -> None:
    random = np.random.default_rng(0)
    covariances = []
    for _ in range(2):
        basis = np.linalg.qr(random.normal(size=(60, 60)))[0]
        covariances.append(basis @ np.diag(np.linspace(2, 1, 60)) @ basis.T)
    found = likeness(*covariances, 20)
    assert found.subspace_overlap == pytest.approx(found.subspace_chance, abs=0.05)


def test_only_directions_that_both_have_are_compared() -> None:
    assert likeness(np.diag([2.0, 1.0, 0.0]), np.diag([2.0, 0.0, 1.0]), 3).directions == 2
    assert likeness(np.eye(3), np.eye(3)).spectral_correlation == 1


def test_residuals_of_pairs() -> None:
    random = np.random.default_rng(1)
    images = random.normal(size=(5000, 4))
    noise = random.normal(size=(5000, 4))
    even = pair_residual(images, images + 2 * noise, images + noise)
    assert even.ratio == pytest.approx(0.25)
    assert even.anisotropy == pytest.approx(1, abs=0.1) and even.effective_dimension == pytest.approx(1, abs=0.01)
    along = pair_residual(images, images + noise, images + noise * [1, 0, 0, 0])
    assert along.anisotropy == pytest.approx(4) and along.effective_dimension == pytest.approx(0.25)
    assert pair_residual(images, images + noise, images).ratio == 0
