"""The frozen alignment: rows do not see their batch, folders come back whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from gapbridge.align import Alignment, fit
from gapbridge.errors import ArtifactError
from tests.align.oracle import Cloud


@pytest.fixture
def fitted(cloud: Cloud) -> Alignment:
    return fit(cloud(80, 0), cloud(70, 1)).with_origin("encoder-a", {"texts": ["t"], "images": ["i"]})


def test_a_row_does_not_depend_on_its_batch(fitted: Alignment, cloud: Cloud) -> None:
    texts = cloud(33, 5)
    ids = [str(i) for i in range(33)]
    whole = fitted.apply(texts, ids)
    single = np.concatenate([fitted.apply(texts[i : i + 1], ids[i : i + 1]) for i in range(33)])
    np.testing.assert_array_equal(whole, single)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_saved_and_loaded_is_the_same(fitted: Alignment, cloud: Cloud, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = Alignment.load(tmp_path, width=24, fingerprint="encoder-a")
    texts = cloud(9, 7)
    np.testing.assert_array_equal(loaded.move(texts), fitted.move(texts))
    assert loaded.sources == {"texts": ["t"], "images": ["i"]}
    assert (loaded.text_count, loaded.image_count, loaded.scale) == (80, 70, fitted.scale)
    np.testing.assert_array_equal(loaded.image_std, fitted.image_std)


def test_a_method_without_drift_comes_back(cloud: Cloud, tmp_path: Path) -> None:
    fit(cloud(8, 0), cloud(8, 1), "anchor").save(tmp_path)
    assert Alignment.load(tmp_path).drift_means.shape == (0, 24)


def test_the_same_alignment_gives_the_same_bytes(fitted: Alignment, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a")
    Alignment.load(_saved(fitted, tmp_path / "b")).save(tmp_path / "c")
    for name in ("alignment.json", "alignment.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_other_vectors_are_refused(fitted: Alignment, cloud: Cloud, tmp_path: Path) -> None:
    folder = _saved(fitted, tmp_path)
    with pytest.raises(ArtifactError, match="width is 24, the vectors' 32"):
        Alignment.load(folder, width=32)
    with pytest.raises(ArtifactError, match="of encoder encoder-a, but the vectors come from encoder-b"):
        Alignment.load(folder, fingerprint="encoder-b")
    with pytest.raises(ArtifactError, match="width is 24, the vectors' 5"):
        fitted.apply(cloud(3, 0, width=5), ["a", "b", "c"])


def test_nan_in_rows_is_an_error(fitted: Alignment, cloud: Cloud) -> None:
    texts = cloud(3, 0)
    texts[1, 1] = np.nan
    with pytest.raises(ArtifactError, match="row 1: holds NaN"):
        fitted.apply(texts, ["a", "b", "c"])


def test_ids_must_match_rows(fitted: Alignment, cloud: Cloud) -> None:
    with pytest.raises(ValueError, match="3 rows with 2 ids"):
        fitted.apply(cloud(3, 0), ["a", "b"])


def _saved(fitted: Alignment, folder: Path) -> Path:
    fitted.save(folder)
    return folder


def _change_settings(folder: Path, **changes: object) -> None:
    path = folder / "alignment.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def test_another_format_is_refused(fitted: Alignment, tmp_path: Path) -> None:
    folder = _saved(fitted, tmp_path)
    _change_settings(folder, format_version=99)
    with pytest.raises(ArtifactError, match="not an alignment of format 2"):
        Alignment.load(folder)


@pytest.mark.parametrize("damage", ["no_json", "no_tensors", "cut", "no_scale", "unknown_method", "no_drift", "nan"])
def test_damage_is_seen(damage: str, fitted: Alignment, tmp_path: Path) -> None:
    folder = _saved(fitted, tmp_path)
    tensors = folder / "alignment.safetensors"
    vectors = safetensors.numpy.load_file(tensors)
    if damage == "no_json":
        (folder / "alignment.json").unlink()
    elif damage == "no_tensors":
        tensors.unlink()
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-40])
    elif damage == "no_scale":
        _change_settings(folder, scale=None)
    elif damage == "unknown_method":
        _change_settings(folder, method="magic")
    else:
        vectors["text_mean"][0] = np.nan if damage == "nan" else vectors["text_mean"][0]
        kept = {name: value for name, value in vectors.items() if damage == "nan" or name != "drift_means"}
        tensors.write_bytes(safetensors.numpy.save(kept))
    with pytest.raises(ArtifactError) as caught:
        Alignment.load(folder)
    assert "\n" not in str(caught.value)
