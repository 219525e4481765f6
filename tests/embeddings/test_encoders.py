"""Encoders: unit rows that do not depend on their batch, known by a fingerprint, never with random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
from PIL import Image

from gapbridge.embeddings.encoders import (
    BATCH_ROWS,
    DualEncoder,
    load_encoder,
    load_image_half,
    load_words,
    open_pretrained,
    pin_encoder,
)
from gapbridge.errors import ArtifactError, InputError


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clip_folder, tmp_path / "encoder")


@pytest.fixture(scope="module")
def encoder(clip_folder: Path) -> DualEncoder:
    return open_pretrained(f"local-dir:{clip_folder}")


def test_rows_are_unit_vectors_and_those_of_open_clip(encoder: DualEncoder, clip_folder: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(["a red circle"])
    images = encoder.encode_images([picture(0, (50, 40))])
    texts = encoder.encode_texts(["a red circle"])
    assert images.dtype == texts.dtype == np.float32
    assert images.shape == texts.shape == (1, encoder.width)
    for mine, theirs in (
        (images, model.eval().encode_image(preprocess(picture(0, (50, 40)))[None], normalize=True)),
        (texts, model.encode_text(tokens, normalize=True)),
    ):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), atol=1e-5)
        assert np.linalg.norm(mine.astype(np.float64)) == pytest.approx(1, abs=1e-6)


def test_a_row_does_not_depend_on_its_batch(encoder: DualEncoder) -> None:
    count = BATCH_ROWS + 3
    images = encoder.encode_images([picture(seed) for seed in range(count)])
    texts = encoder.encode_texts([f"a ring {number}" for number in range(count)])
    for row in (0, 1, BATCH_ROWS - 1, BATCH_ROWS, count - 1):
        np.testing.assert_array_equal(encoder.encode_images([picture(row)])[0], images[row])
        np.testing.assert_array_equal(encoder.encode_texts([f"a ring {row}"])[0], texts[row])


def test_nothing_gives_no_rows(encoder: DualEncoder) -> None:
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, encoder.width)


def test_the_template_is_put_around_the_text(clip_folder: Path, encoder: DualEncoder) -> None:
    templated = open_pretrained(f"local-dir:{clip_folder}", text_template="a {} ring")
    np.testing.assert_array_equal(templated.encode_texts(["red"]), encoder.encode_texts(["a red ring"]))
    assert templated.fingerprint != encoder.fingerprint


def test_truncated_texts_are_counted(encoder: DualEncoder) -> None:
    fits = " ".join(["red"] * (encoder.context_length - 2))
    assert encoder.truncated(["red", fits]) == 0
    assert encoder.truncated(["red", fits + " red"]) == 1
    encoder.encode_texts([fits + " red"])
    assert encoder.truncated([fits + " red"]) == 1


def test_encoding_does_not_move_the_fingerprint(encoder: DualEncoder, clip_folder: Path) -> None:
    before = encoder.fingerprint
    encoder.encode_texts(["red " * 30])
    assert open_pretrained(f"local-dir:{clip_folder}").fingerprint == before


def test_a_stored_encoder_is_found_again(folder: Path) -> None:
    pinned = pin_encoder(folder, None, None, "{}")
    loaded = load_encoder(folder)
    assert loaded.fingerprint == pinned.fingerprint
    assert json.loads((folder / "encoder.json").read_text()) == {
        "format_version": 2,
        "kind": "open_clip",
        "pretrained": "local",
        "revision": None,
        "text_template": "{}",
        "fingerprint": pinned.fingerprint,
        "image_fingerprint": pinned.image.fingerprint(),
        "words_fingerprint": pinned.words.fingerprint(),
        "width": 32,
        "context_length": 12,
    }


def test_a_pinned_encoder_is_a_name_and_a_fingerprint(clip_folder: Path, tmp_path: Path) -> None:
    pinned = pin_encoder(tmp_path, f"local-dir:{clip_folder}", None, "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.json"]
    assert load_encoder(tmp_path).fingerprint == pinned.fingerprint


def test_other_weights_than_the_pinned_ones_are_refused(folder: Path) -> None:
    pin_encoder(folder, None, None, "{}")
    change_weights(folder, lambda state: state["ln_final.bias"].add_(1))
    with pytest.raises(ArtifactError, match=r"not the weights that .*encoder.json names"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("ln_final.bias"),
        lambda state: state.update(surplus=state["ln_final.bias"].clone()),
        lambda state: state.update({"ln_final.bias": state["ln_final.bias"][:-1].clone()}),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_weights_must_fill_the_model_exactly(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    change_weights(folder, change)
    with pytest.raises(ArtifactError, match="open_clip cannot load it"):
        open_pretrained(f"local-dir:{folder}")


def test_half_a_file_of_weights_is_one_line(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ArtifactError, match="open_clip cannot load it"):
        open_pretrained(f"local-dir:{folder}")


def test_a_folder_without_safe_weights_is_refused(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    weights.rename(folder / "open_clip_model.bin")
    with pytest.raises(ArtifactError, match=r"holds no \*.safetensors"):
        open_pretrained(f"local-dir:{folder}")


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"open_clip_config.json is missing"):
        open_pretrained(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("name", ["ViT-B-32/nothing", "Nothing/laion2b_e16"])
def test_a_name_without_weights_is_no_random_encoder(name: str) -> None:
    with pytest.raises(ArtifactError, match="open_clip cannot load it") as caught:
        open_pretrained(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ViT-B-32", "/laion", "ViT-B-32/"])
def test_a_name_that_says_no_weights_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="none of local-dir:PATH"):
        open_pretrained(name)


def test_a_revision_without_a_hub_is_refused(clip_folder: Path) -> None:
    with pytest.raises(InputError, match="has no revisions"):
        open_pretrained(f"local-dir:{clip_folder}", "main")


def test_a_template_without_a_place_for_the_text_is_refused(clip_folder: Path) -> None:
    with pytest.raises(InputError, match="text_template"):
        open_pretrained(f"local-dir:{clip_folder}", None, "a photo")


def test_an_unreachable_hub_is_an_error_of_one_line() -> None:
    with pytest.raises(ArtifactError, match="cannot be fetched") as caught:
        open_pretrained("hf-hub:nobody/nothing")
    assert "\n" not in str(caught.value)


def test_an_encoder_of_another_format_is_refused(folder: Path) -> None:
    pin_encoder(folder, None, None, "{}")
    about = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**about, "format_version": 1}))
    for load in (load_encoder, load_image_half, load_words):
        with pytest.raises(ArtifactError, match="no encoder of format 2"):
            load(folder)


def change_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "open_clip_model.safetensors"
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)
