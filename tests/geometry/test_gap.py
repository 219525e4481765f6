"""The gap as numbers and as a plane."""

import numpy as np
import pytest

from gapbridge.geometry.gap import centroid_gap, gap_plane, in_plane, paired_cosine, trace_ratio


def _clouds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    stretch = np.array([0.1, 3.0, 0.5, 0.2, 0.1])
    texts = random.normal(size=(200, 5)) * stretch
    images = random.normal(size=(300, 5)) * stretch
    texts[:, 0] += 4
    return texts.astype(np.float32), images.astype(np.float32)


def test_centroid_gap_and_trace_ratio() -> None:
    texts = np.array([[1.0, 0.0], [3.0, 0.0]])
    images = np.array([[2.0, 2.0], [2.0, 6.0]])
    assert centroid_gap(texts, images) == 4
    assert trace_ratio(texts, images) == 0.25


def test_paired_cosine() -> None:
    texts = np.array([[2.0, 0.0], [0.0, 3.0]])
    assert paired_cosine(texts, np.array([[5.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)


def test_the_plane_shows_the_whole_gap_along_its_first_axis() -> None:
    texts, images = _clouds()
    origin, axes = gap_plane(texts, images)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    text_points, image_points = in_plane(texts, origin, axes), in_plane(images, origin, axes)
    np.testing.assert_allclose(image_points.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(text_points.mean(axis=0), [centroid_gap(texts, images), 0], atol=1e-6)


def test_the_second_axis_is_the_main_spread() -> None:
    axes = gap_plane(*_clouds())[1]
    assert axes[1, 1] > 0.99


def test_without_a_gap_the_plane_is_that_of_the_spread() -> None:
    _, images = _clouds()
    origin, axes = gap_plane(images, images)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    assert axes[0, 1] > 0.99
    assert np.isfinite(in_plane(images, origin, axes)).all()
