"""The baselines: C3's noise, blockwise covariances, and more than one centroid step."""

import numpy as np
import pytest
import scipy.linalg

from gapbridge.align import Moments, Options, Side, fit, fit_held_out, from_moments
from gapbridge.align.alignment import noise
from gapbridge.align.blockwise import FRAME_ENERGY
from gapbridge.errors import InputError
from tests.align.oracle import Cloud, project


def _ids(count: int) -> list[str]:
    return [f"row {place}" for place in range(count)]


def test_c3_moves_the_mean_and_adds_noise_that_an_id_decides(cloud: Cloud) -> None:
    texts, images = cloud(90, 0), cloud(80, 1)
    fitted = fit(texts, images, "c3", noise=0.3, seed=4)
    expected = project(images.mean(axis=0) + texts - texts.mean(axis=0) + noise(_ids(90), 24, 0.3, 4))
    np.testing.assert_allclose(fitted.apply(texts, _ids(90)), expected, atol=1e-7)
    backwards = fitted.apply(texts[::-1], _ids(90)[::-1])[::-1]
    np.testing.assert_array_equal(backwards, fitted.apply(texts, _ids(90)))
    assert np.abs(fitted.apply(texts[:1], ["another"]) - expected[:1]).max() > 1e-3
    with pytest.raises(ValueError, match="ids of the rows"):
        fitted.move(texts)


def test_noise_is_isotropic_of_the_length_asked_for() -> None:
    drawn = noise(_ids(4000), 16, 0.5, 0)
    assert np.sqrt(np.square(drawn).sum(axis=1).mean()) == pytest.approx(0.5, rel=0.02)
    spread = np.linalg.eigvalsh(drawn.T @ drawn / 4000)
    assert spread.max() / spread.min() < 1.4
    assert not np.array_equal(noise(_ids(3), 16, 0.5, 1), drawn[:3])


def test_blockwise_is_whitening_and_colouring_inside_each_block(cloud: Cloud) -> None:
    texts, images = cloud(300, 0), cloud(200, 1)
    covariances = [np.cov(side.T, bias=True) for side in (texts, images)]
    values, vectors = np.linalg.eigh(sum(covariances))
    values, vectors = values[::-1], vectors[:, ::-1]
    count = int((np.cumsum(values) / values.sum() < FRAME_ENERGY).sum()) + 1
    moved = np.zeros_like(texts)
    for block in (vectors[:, :count], vectors[:, count:]):
        roots = []
        for covariance, rows in zip(covariances, (300, 200), strict=True):
            inner = block.T @ covariance @ block
            share = inner.shape[0] / rows
            shrunk = (1 - share) * inner + share * np.trace(inner) / len(inner) * np.eye(len(inner))
            roots.append(scipy.linalg.sqrtm(shrunk).real)
        map_ = block @ roots[1] @ np.linalg.inv(roots[0]) @ block.T
        moved += (texts - texts.mean(axis=0)) @ map_.T
    moved = project(moved + images.mean(axis=0))
    expected = project(moved - moved.mean(axis=0) + images.mean(axis=0))
    fitted = fit(texts, images, "blockwise")
    np.testing.assert_allclose(fitted.apply(texts, _ids(300)), expected, atol=1e-6)


def test_blockwise_brings_the_covariance_over(cloud: Cloud) -> None:
    texts, images = cloud(5000, 0), cloud(5000, 1)
    left = {}
    for method in ("anchor", "blockwise"):
        moved = fit(texts, images, method).move(texts)
        left[method] = np.linalg.norm(np.cov(moved.T) - np.cov(images.T)) / np.linalg.norm(np.cov(images.T))
    assert left["blockwise"] < left["anchor"] / 1.5


def test_blockwise_needs_covariances(cloud: Cloud) -> None:
    moments = [Moments(24).update(cloud(9, seed)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="keep no covariance"):
        from_moments(*moments, "blockwise")


def test_every_centroid_step_brings_the_mean_closer_in_sample(cloud: Cloud) -> None:
    texts, images = cloud(400, 0), cloud(300, 1)
    gaps = []
    for steps in (1, 2, 3):
        fitted = fit(texts, images, centroid_iterations=steps)
        assert fitted.drift_means.shape == (steps, 24)
        gaps.append(np.linalg.norm(fitted.move(texts).mean(axis=0) - images.mean(axis=0)))
    assert gaps[0] > gaps[1] > gaps[2]


def test_steps_end_where_the_held_out_gap_stops_falling(cloud: Cloud) -> None:
    sides = Side(cloud(400, 0)), Side(cloud(300, 1))
    figures = [fit_held_out(*sides, Options(centroid_iterations=steps))[1] for steps in (1, 2, 50)]
    assert figures[0]["centroid_iterations"] == 1
    assert figures[2]["centroid_iterations"] < 50
    assert figures[2]["gap_heldout"] <= figures[0]["gap_heldout"]


def test_equal_rows_have_nothing_to_align(cloud: Cloud) -> None:
    for texts, images in ((np.tile(cloud(1, 0), (9, 1)), cloud(9, 1)), (cloud(9, 1), np.tile(cloud(1, 0), (9, 1)))):
        with pytest.raises(InputError, match="all 9 rows are the same"):
            fit(texts, images)
