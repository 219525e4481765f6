"""The aligners against a float64 oracle, the properties of App. B.6, and what cannot be fitted."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.align import Moments, fit
from gapbridge.errors import ArtifactError, InputError
from tests.align.oracle import Cloud, oracle, project

METHODS = ("none", "anchor", "anchor_trace", "realign")


class _InBatches:
    """A matrix in batches of a few rows; counts how often it was walked."""

    def __init__(self, rows: np.ndarray, size: int = 7) -> None:
        self.rows, self.size, self.walks = rows, size, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        self.walks += 1
        return (self.rows[start : start + self.size] for start in range(0, len(self.rows), self.size))


def _ids(rows: np.ndarray) -> list[str]:
    return [str(i) for i in range(len(rows))]


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_oracle(method: str, cloud: Cloud) -> None:
    texts, images = cloud(300, 0), cloud(200, 1)
    aligned = fit(texts, images, method).apply(texts, _ids(texts))
    assert aligned.dtype == np.float32
    np.testing.assert_allclose(aligned, oracle(texts, images, method), atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_exact_before_rounding(method: str, cloud: Cloud) -> None:
    texts, images = cloud(300, 0), cloud(200, 1)
    np.testing.assert_allclose(fit(texts, images, method).move(texts), oracle(texts, images, method), atol=1e-13)


def _made(kind: str, cloud: Cloud) -> np.ndarray:
    """Texts (n, 24) of a kind that is hard on the arithmetic."""
    texts = cloud(300, 0)
    if kind == "clustered":
        centres = cloud(5, 3)
        return project(centres[np.arange(300) % 5] + 0.01 * texts)
    if kind == "near-degenerate":  # the spread is a hundred-thousandth of the length
        return project(texts[:1] + 1e-5 * texts)
    return texts[:9] if kind == "n < d" else texts.astype(np.float16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["clustered", "near-degenerate", "fp16", "n < d"])
def test_equals_the_oracle_on_hard_data(kind: str, method: str, cloud: Cloud) -> None:
    texts, images = _made(kind, cloud), cloud(200, 1)
    aligned = fit(texts, images, method).apply(texts, _ids(texts))
    np.testing.assert_allclose(aligned, oracle(texts, images, method), atol=1e-6)


def test_mean_shift_is_the_anchor(cloud: Cloud) -> None:
    texts, images = cloud(50, 0), cloud(60, 1)
    shifted = fit(texts, images, "mean_shift")
    assert shifted.method == "anchor"
    np.testing.assert_array_equal(shifted.move(texts), fit(texts, images, "anchor").move(texts))


def test_batches_give_what_a_matrix_gives(cloud: Cloud) -> None:
    texts, images = cloud(100, 0), cloud(90, 1)
    batched_texts, batched_images = _InBatches(texts), _InBatches(images, 11)
    batched, whole = fit(batched_texts, batched_images), fit(texts, images)
    for name in ("text_mean", "image_mean", "image_std", "drift_means", "scale", "text_trace", "image_trace"):
        np.testing.assert_allclose(getattr(batched, name), getattr(whole, name), atol=1e-12)
    assert (batched_texts.walks, batched_images.walks) == (2, 1)


def _rounding(rows: np.ndarray, size: float) -> float:
    """What rounding may do to a mean of `rows` (n, d), and to a product of them, whose numbers are at most `size`.

    A sum of k numbers is off by at most k roundings of its size, to first order, and each step before and after it
    adds one: n for the mean, d for a length, and eight for the steps themselves.
    """
    return (sum(rows.shape) + 8) * float(np.finfo(np.float64).eps) * size


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.integers(2, 9))
def test_properties_of_the_steps(seed: int, text_rows: int, image_rows: int, width: int) -> None:
    """E[ė] = μ_x; tr Cov(ẽ) = s² T_y = T_x; the spectrum keeps its shape."""
    random = np.random.default_rng(seed)
    texts = project(random.normal(size=(text_rows, width)) + random.normal(size=width))
    images = project(random.normal(size=(image_rows, width)) + random.normal(size=width))
    fitted = fit(texts, images, "realign")
    image_mean, residuals = images.mean(axis=0), texts - fitted.text_mean
    # Residuals are at most 2 long, and as many times longer once they are stretched.
    exact = _rounding(texts, 1 + 2 * fitted.scale) + _rounding(images, 1)
    stretched = Moments(width, covariance=True).update(image_mean + fitted.scale * residuals)
    np.testing.assert_allclose(stretched.mean, image_mean, atol=exact)
    # A spread is a mean square about the mean: an error of a row counts twice, beside the spread's own length, and
    # both sides of the comparison, texts and images, have one.
    relative = 4 * np.sqrt(width) * exact / np.sqrt(fitted.image_trace)
    assert stretched.trace == pytest.approx(fitted.scale**2 * fitted.text_trace, rel=relative)
    assert stretched.trace == pytest.approx(fitted.image_trace, rel=relative)
    before = np.linalg.eigvalsh(residuals.T @ residuals)
    after = np.linalg.eigvalsh(stretched.covariance)
    # Eigenvalues move by no more than the matrix does (Weyl), which is in proportion to its trace.
    np.testing.assert_allclose(after / after.sum(), before / before.sum(), atol=relative)


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.integers(2, 9))
def test_the_last_step_brings_the_centroid_closer(seed: int, text_rows: int, image_rows: int, width: int) -> None:
    """E[e″] = μ_x before the last projection, and the projection undoes no more than the drift."""
    random = np.random.default_rng(seed)
    texts = project(random.normal(size=(text_rows, width)) + 2 * random.normal(size=width))
    images = project(random.normal(size=(image_rows, width)) + 2 * random.normal(size=width))
    stretched, full = fit(texts, images, "anchor_trace"), fit(texts, images, "realign")
    drifted = stretched.move(texts)
    # A projection divides by the length, so it enlarges what rounding did by one over the shortest.
    shortest = np.linalg.norm(full.image_mean + full.scale * (texts - full.text_mean), axis=1).min()
    exact = (_rounding(texts, 1 + 2 * full.scale) + _rounding(images, 1)) / min(1.0, float(shortest))
    np.testing.assert_allclose(full.drift_means[0], drifted.mean(axis=0), atol=exact)
    recentred = drifted - full.drift_means[0] + full.image_mean
    np.testing.assert_allclose(recentred.mean(axis=0), full.image_mean, atol=exact)
    left = np.linalg.norm(full.move(texts).mean(axis=0) - full.image_mean)
    # A row's projection moves it by at most its own distance from the sphere, which is at most its shift.
    least = min(1.0, float(np.linalg.norm(recentred, axis=1).min()))
    assert left <= np.linalg.norm(full.image_mean - full.drift_means[0]) + np.sqrt(width) * exact / least


def test_what_is_recorded(cloud: Cloud) -> None:
    texts, images = cloud(30, 0), cloud(40, 1)
    fitted = fit(texts, images, "anchor")
    assert (fitted.text_count, fitted.image_count, fitted.width, fitted.scale) == (30, 40, 24, 1.0)
    assert not len(fitted.drift_means)
    np.testing.assert_allclose(fitted.image_std, images.std(axis=0), atol=1e-13)
    assert fitted.text_trace == pytest.approx(texts.var(axis=0).sum(), abs=1e-13)


def test_lengths_do_not_matter_and_are_counted(cloud: Cloud) -> None:
    texts, images = cloud(30, 0), cloud(40, 1)
    stretched = texts * np.where(np.arange(30) < 4, 1.0021, 1.0019)[:, None]
    fitted = fit(stretched, images * 3)
    assert (fitted.text_off_unit, fitted.image_off_unit) == (4, 40)
    np.testing.assert_allclose(fitted.move(texts), oracle(texts, images, "realign"), atol=1e-13)


def test_float16_storage_is_not_counted(cloud: Cloud) -> None:
    texts = cloud(500, 0, width=256).astype(np.float16)
    assert fit(texts, texts).text_off_unit == 0


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "NaN or infinity")])
def test_a_number_that_is_none_stops(value: float, what: str, cloud: Cloud) -> None:
    texts, images = cloud(30, 0), cloud(40, 1)
    images[17, 3] = value
    with pytest.raises(ArtifactError, match=f"images row 17: holds {what}"):
        fit(_InBatches(texts), _InBatches(images))


def test_a_zero_row_stops(cloud: Cloud) -> None:
    texts, images = cloud(30, 0), cloud(40, 1)
    texts[5] = 0
    with pytest.raises(ArtifactError, match="texts row 5: is zero"):
        fit(texts, images)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda texts: texts[:, :20], ArtifactError, "texts have width 20, images 24"),
        (lambda texts: texts[:1], InputError, "texts: 1 rows"),
        (lambda texts: texts[:0], InputError, "texts: 0 rows"),
        (lambda texts: texts[0], ArtifactError, "rows and columns"),
        (lambda texts: iter([texts]), ValueError, "one-shot"),
        (lambda texts: [texts, texts[:, :5]], ArtifactError, "batches of width 24 and 5"),
    ],
)
def test_what_cannot_be_fitted(
    change: Callable[[np.ndarray], object], error: type[Exception], message: str, cloud: Cloud
) -> None:
    with pytest.raises(error, match=message):
        fit(change(cloud(30, 0)), cloud(40, 1))


def test_unknown_method(cloud: Cloud) -> None:
    with pytest.raises(
        InputError,
        match="'magic': unknown; choose one of none, anchor, anchor_trace",
    ):
        fit(cloud(3, 0), cloud(3, 1), "magic")


if "GAPBRIDGE_REAL_FEATURES" in os.environ:

    def test_real_features() -> None:
        """CLIP vectors of 500 COCO pictures and captions, (2, 500, 512): what the authors' own script gives."""
        images, texts = np.load(os.environ["GAPBRIDGE_REAL_FEATURES"], allow_pickle=False)
        fitted = fit(texts, images)
        assert np.linalg.norm(fitted.text_mean - fitted.image_mean) == pytest.approx(0.851352, abs=5e-7)
        assert fitted.text_trace == pytest.approx(0.48383629, abs=5e-9)
        assert fitted.image_trace == pytest.approx(0.46757992, abs=5e-9)
        assert fitted.scale == pytest.approx(0.98305701, abs=1e-8)
        aligned = fitted.apply(texts, _ids(texts))
        np.testing.assert_allclose(aligned[0, :3], [0.00523387, -0.07913417, -0.04083435], atol=1e-8)
        assert np.linalg.norm(aligned.mean(axis=0, dtype=np.float64) - fitted.image_mean) == pytest.approx(
            1.4648e-3, abs=1e-7
        )
        assert np.einsum("nd,nd->n", aligned, project(images)).mean() == pytest.approx(0.67915, abs=1e-5)
