"""One half of an encoder without the other: the same bytes, and weights of the text half that nobody reads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gapbridge.embeddings import encoders
from gapbridge.embeddings.encoders import DualEncoder, load_encoder, load_image_half, load_words, pin_encoder
from gapbridge.errors import ArtifactError
from tests.checkpoints import save_encoder
from tests.embeddings.llm2clip_checkpoints import TEXTS
from tests.embeddings.test_encoders import change_weights

NAMES = {
    "open_clip": "local-dir:clip",
    "clip": "transformers:models/clip",
    "siglip": "transformers:models/siglip2",
    "llm2clip": "llm2clip:models/vision+models/text",
}
_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.")


@pytest.fixture(params=list(NAMES))
def pinned(
    request: pytest.FixtureRequest, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[DualEncoder, Path]:
    """An encoder and the folder whose encoder.json names it."""
    monkeypatch.chdir(tmp_path)
    name = NAMES[request.param]
    if request.param == "open_clip":
        shutil.copytree(clip_folder, "clip")
    else:
        save_encoder(tmp_path, name, TEXTS * 20)
    return pin_encoder(tmp_path / "encoder", name, None, "a photo of {}"), tmp_path / "encoder"


def _spoil_text_halves(folder: Path, spoil: Callable[[bytearray, int, int], None]) -> int:
    """Change the bytes of every tensor that is not of an image half, in place; gives back how many there were."""
    changed = 0
    for file in folder.rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8:start]).items():
            if name != "__metadata__" and not name.startswith(_OF_IMAGES):
                spoil(content, *(start + offset for offset in entry["data_offsets"]))
                changed += 1
        file.write_bytes(content)
    return changed


def _as_nan(content: bytearray, first: int, last: int) -> None:
    content[first:last] = b"\xff" * (last - first)


def test_the_image_half_is_the_encoders_own(pinned: tuple[DualEncoder, Path]) -> None:
    encoder, folder = pinned
    half, whole = load_image_half(folder), load_encoder(folder).image
    assert (half.architecture, half.preprocess_cfg) == (whole.architecture, whole.preprocess_cfg)
    assert json.dumps(half.architecture) == json.dumps(whole.architecture), (
        "it is written into config.json in this order"
    )
    state, expected = half.visual.state_dict(), whole.visual.state_dict()
    assert list(state) == list(expected) and not half.visual.training
    assert all(torch.equal(state[name], expected[name]) and state[name].dtype == expected[name].dtype for name in state)
    assert half.fingerprint() == encoder.image.fingerprint()


def test_nothing_of_the_text_half_is_read_for_it(pinned: tuple[DualEncoder, Path]) -> None:
    encoder, folder = pinned
    assert _spoil_text_halves(folder.parent, _as_nan) > 5
    with pytest.raises(ArtifactError, match="not the weights"):
        load_encoder(folder)
    assert load_image_half(folder).fingerprint() == encoder.image.fingerprint()
    assert load_words(folder).token_counts(TEXTS) == list(encoder.token_counts(TEXTS))


def test_tokens_are_counted_without_any_weights(pinned: tuple[DualEncoder, Path]) -> None:
    encoder, folder = pinned
    texts = [*TEXTS, "a red circle " * 200]
    for file in folder.parent.rglob("*.safetensors"):
        file.write_bytes(b"")
    words = load_words(folder)
    assert list(words.token_counts(texts)) == list(encoder.token_counts(texts))
    assert words.truncated(texts) == encoder.truncated(texts) >= 1
    assert words.context_length == encoder.context_length


def test_a_llama_is_not_even_opened_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path, NAMES["llm2clip"], TEXTS * 20)
    encoder = pin_encoder(tmp_path / "encoder", NAMES["llm2clip"], None, "{}")
    shutil.rmtree("models/text")
    Path("models/text").mkdir()
    np.testing.assert_equal(load_image_half(tmp_path / "encoder").fingerprint(), encoder.image.fingerprint())


def test_other_pictures_halves_and_tokenizers_are_refused(pinned: tuple[DualEncoder, Path]) -> None:
    _, folder = pinned
    files = [file for file in folder.parent.rglob("*.safetensors") if "text" not in file.parts[-2]]
    for file in files:
        state = safetensors.torch.load_file(file)
        name = next(name for name in sorted(state) if name.startswith(_OF_IMAGES) and state[name].ndim == 1)
        state[name] += 1
        safetensors.torch.save_file(state, file, {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"not the weights that .*encoder.json names"):
        load_image_half(folder)
    for file in folder.parent.rglob("tokenizer.json"):
        tokenizer = json.loads(file.read_text())
        tokenizer["added_tokens"][0]["rstrip"] ^= True
        file.write_text(json.dumps(tokenizer))
    with pytest.raises(ArtifactError, match=r"not the tokenizer that .*encoder.json names"):
        load_words(folder)


def test_weights_in_another_librarys_layout_are_read_by_open_clip(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of a training run under DDP, whose names all begin with `module.`."""
    folder = shutil.copytree(clip_folder, tmp_path / "clip")

    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[f"module.{name}"] = state.pop(name)

    change_weights(folder, rename)
    pinned = pin_encoder(folder, None, None, "{}")
    assert load_image_half(folder).fingerprint() == pinned.image.fingerprint()
    assert encoders.load_encoder(folder).fingerprint == pinned.fingerprint
