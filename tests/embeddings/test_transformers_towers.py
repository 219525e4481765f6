"""CLIP and SigLIP checkpoints in transformers' own format: the vectors that transformers gives, and nothing unsafe."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from gapbridge.embeddings import ADAPTERS
from gapbridge.embeddings.encoders import BATCH_ROWS, kind_of, load_encoder, open_pretrained, pin_encoder
from gapbridge.embeddings.transformers_towers import padded_length
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.config import GapbridgeVisionConfig
from gapbridge.model.images import GapbridgeImageProcessor
from gapbridge.model.vision import PooledVisionTower
from gapbridge.train.tokens import train_tokenizer

_HALF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_HALF, "image_size": 32, "patch_size": 16}
TEXTS = ["a red circle", "a blue ring left and a red circle right", "red"]


def picture(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def _model(kind: str, vocabulary: int, end: int) -> PreTrainedModel:
    torch.manual_seed(0)
    marks = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": end}
    text = {**_HALF, **marks, "max_position_embeddings": 12}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="module", params=["clip", "siglip"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tokenizer(TEXTS * 3, 300, chat=False)
    _model(request.param, len(tokenizer), tokenizer.eos_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    if request.param == "clip":
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    else:
        SiglipImageProcessor(size=size).save_pretrained(folder)
    return request.param, folder


def _theirs(kind: str, folder: Path, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """What transformers itself gives, as its documentation says to call each."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = (CLIPImageProcessor if kind == "clip" else SiglipImageProcessor).from_pretrained(folder)
    padded = tokenizer(TEXTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    mask = {"attention_mask": padded.attention_mask} if kind == "clip" else {}
    with torch.no_grad():
        text = model.get_text_features(input_ids=padded.input_ids, **mask).pooler_output
        image = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
    return tuple(torch.nn.functional.normalize(rows, dim=-1).numpy() for rows in (text, image))


def test_the_vectors_are_those_of_transformers(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    encoder, images = open_pretrained(f"transformers:{folder}"), [picture(seed) for seed in range(3)]
    assert (encoder.width, encoder.context_length) == (16 if kind == "clip" else 32, 12)
    texts, rows = _theirs(kind, folder, images)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(images), rows, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_images(images[1:2])[0], encoder.encode_images(images)[1])


def test_the_tables_of_places_that_older_versions_saved_are_no_surprise(
    saved: tuple[str, Path], tmp_path: Path
) -> None:
    """OpenAI's own checkpoints on the hub hold them."""
    folder = shutil.copytree(saved[1], tmp_path / "model")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for half, places in (("text", 12), ("vision", 5 if saved[0] == "clip" else 4)):
        tensors[f"{half}_model.embeddings.position_ids"] = torch.arange(places)[None]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    expected = open_pretrained(f"transformers:{saved[1]}").fingerprint
    assert open_pretrained(f"transformers:{folder}").fingerprint == expected


def test_a_row_does_not_depend_on_its_batch(saved: tuple[str, Path]) -> None:
    encoder = open_pretrained(f"transformers:{saved[1]}")
    texts = [f"a red circle {'left ' * (number % 9)}{number}" for number in range(BATCH_ROWS + 30)]
    rows = encoder.encode_texts(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(encoder.encode_texts([texts[place] for place in order]), rows[order])
    for number in (0, 8, BATCH_ROWS, len(texts) - 1):
        np.testing.assert_array_equal(encoder.encode_texts([texts[number]])[0], rows[number])


def test_truncated_texts_are_counted(saved: tuple[str, Path]) -> None:
    encoder = open_pretrained(f"transformers:{saved[1]}")
    fits = " ".join(["red"] * (encoder.context_length - 2))
    assert (encoder.truncated(["red", fits]), encoder.truncated([fits + " red"])) == (0, 1)


def test_it_is_pinned_and_opened_again(saved: tuple[str, Path], tmp_path: Path) -> None:
    pinned = pin_encoder(tmp_path, f"transformers:{saved[1]}", None, "a {}")
    assert json.loads((tmp_path / "encoder.json").read_text())["kind"] == "transformers"
    assert load_encoder(tmp_path).fingerprint == pinned.fingerprint
    assert open_pretrained(f"transformers:{saved[1]}").fingerprint != pinned.fingerprint  # another template


def test_the_models_vision_tower_gives_the_same_vectors(saved: tuple[str, Path]) -> None:
    """What ends up inside the saved model: built again from its settings, with the encoder's weights."""
    encoder, images = open_pretrained(f"transformers:{saved[1]}"), [picture(seed) for seed in range(3)]
    settings = json.loads(json.dumps(encoder.image.architecture))
    tower = PooledVisionTower(GapbridgeVisionConfig(hidden_size=encoder.width, architecture=settings)).eval()
    tower.visual.load_state_dict(encoder.image.visual.state_dict())
    pixels = GapbridgeImageProcessor(encoder.image.preprocess_cfg)(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = tower(pixels).pooler_output.numpy()
    np.testing.assert_allclose(found, encoder.encode_images(images), atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "missing keys"),
        ("unexpected", "unexpected keys"),
        ("misshapen", "transformers cannot load it|mismatched keys"),
        ("no weights", "transformers cannot load it"),
        ("pickle", "transformers cannot load it"),
        ("no tokenizer", "transformers cannot load it|its tokenizer knows"),
        ("other", "is a model of type bert; CLIP and SigLIP can be read"),
    ],
)
def test_what_does_not_fit_is_refused(damage: str, message: str, saved: tuple[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved[1], tmp_path / "model")
    weights = folder / "model.safetensors"
    tensors: dict[str, Any] = safetensors.torch.load_file(weights)
    if damage == "missing":
        del tensors["text_model.final_layer_norm.weight"]
        safetensors.torch.save_file(tensors, weights, {"format": "pt"})
    elif damage == "unexpected":
        safetensors.torch.save_file({**tensors, "more": torch.zeros(2)}, weights, {"format": "pt"})
    elif damage == "misshapen":
        tensors["text_model.final_layer_norm.weight"] = torch.zeros(3)
        safetensors.torch.save_file(tensors, weights, {"format": "pt"})
    elif damage in ("no weights", "pickle"):
        weights.unlink()
        if damage == "pickle":
            torch.save(tensors, folder / "pytorch_model.bin")
    elif damage == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        BertConfig().save_pretrained(folder)
    with pytest.raises((ArtifactError, InputError), match=message) as caught:
        open_pretrained(f"transformers:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["models/never-fetched", "owner/name"])
def test_without_a_folder_a_name_needs_a_commit(name: str) -> None:
    """A folder that was mistyped or never fetched is not looked for on the hub, nor are weights that may change."""
    with pytest.raises(InputError, match=f"transformers:{name}: no such folder; .* set encoder.revision to a commit"):
        open_pretrained(f"transformers:{name}")


def test_texts_are_padded_to_a_few_lengths_of_which_each_holds_the_text() -> None:
    lengths = [padded_length(count, 77) for count in range(1, 100)]
    assert sorted(set(lengths)) == [8, 12, 16, 24, 32, 48, 64, 77]
    assert all(length >= min(count, 77) for count, length in enumerate(lengths, start=1))
    assert all(length < 1.5 * count + 1 for count, length in enumerate(lengths[8:], start=9))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("local-dir:/models/clip", "open_clip"),
        ("hf-hub:laion/one", "open_clip"),
        ("ViT-B-32/openai", "open_clip"),
        ("transformers:google/siglip2-base-patch16-224", "transformers"),
        ("llm2clip:one/vision+one/text", "llm2clip"),
    ],
)
def test_every_name_has_its_adapter_and_every_adapter_says_its_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    assert all("\n" not in said and len(said) < 120 for said in ADAPTERS.values())
    shown = {name: f"{name}:" for name in ADAPTERS} | {"open_clip": "hf-hub:"}
    assert {kind: shown[kind] in said for kind, said in ADAPTERS.items()} == dict.fromkeys(shown, True)
