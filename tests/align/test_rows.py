"""Rows walked in blocks: in their order, by any number of threads, and bad ones counted and left out."""

import numpy as np
import pytest

from gapbridge.align import Centroid, RowBatches, fit, rows, summarise
from gapbridge.errors import ArtifactError, InputError
from tests.align.oracle import Cloud


def _bad(texts: np.ndarray) -> np.ndarray:
    texts = texts.copy()
    texts[5] = 0
    texts[17, 3] = np.nan
    texts[88, 0] = np.inf
    return texts


def test_bad_rows_are_left_out_and_named(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_NUMBERS", 24 * 7)
    texts, images = cloud(100, 0), cloud(80, 1)
    walked = RowBatches(_bad(texts), "texts", max_bad_fraction=0.03)
    fitted = fit(walked, images)
    assert walked.bad == {5: "is zero", 17: "holds NaN or infinity", 88: "holds NaN or infinity"}
    assert walked.total == 100 and walked.good().sum() == 97
    places = np.concatenate(list(walked.map(lambda block: block.places)))
    np.testing.assert_array_equal(places, np.delete(np.arange(100), [5, 17, 88]))
    clean = fit(np.delete(texts, [5, 17, 88], axis=0), images)
    np.testing.assert_allclose(fitted.drift_means, clean.drift_means, atol=1e-14)
    assert fitted.text_count == 97


def test_too_many_bad_rows_stop(cloud: Cloud) -> None:
    walked = RowBatches(_bad(cloud(100, 0)), "texts", max_bad_fraction=0.02)
    with pytest.raises(ArtifactError, match="texts row 5: is zero, and 2 more of 100"):
        summarise(walked)


def test_only_bad_rows_are_no_rows() -> None:
    with pytest.raises(InputError, match="texts: 0 rows"):
        summarise(RowBatches(np.zeros((4, 3)), "texts", max_bad_fraction=1.0))


@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_threads_and_come_in_order(
    threads: int, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK_NUMBERS", 24 * 7)
    expected = fit(cloud(200, 0), cloud(150, 1))
    monkeypatch.setattr(rows, "THREADS", threads)
    found = fit(cloud(200, 0), cloud(150, 1))
    np.testing.assert_array_equal(found.text_mean, expected.text_mean)
    np.testing.assert_array_equal(found.drift_means, expected.drift_means)
    walked = RowBatches(cloud(200, 0), "texts")
    places = np.concatenate(list(walked.map(lambda block: block.places)))
    np.testing.assert_array_equal(places, np.arange(200))


def test_a_centroid_is_gathered_from_parts(cloud: Cloud) -> None:
    texts, images = cloud(120, 0), cloud(90, 1)
    stretched = fit(texts, images, "anchor_trace")
    whole = Centroid(stretched).update(texts)
    parts = Centroid(stretched).update(texts[:50]).merge(Centroid(stretched).update(texts[50:]))
    assert parts.count == 120
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-14)
    np.testing.assert_allclose(whole.finish().move(texts), fit(texts, images).move(texts), atol=1e-13)
