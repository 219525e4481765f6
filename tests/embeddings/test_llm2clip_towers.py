"""LLM2CLIP's two checkpoints: read both ways, as a user's message, whatever pads a text or is in its batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, CLIPImageProcessor, CLIPVisionModelWithProjection, LlamaModel

from gapbridge.embeddings.encoders import BATCH_ROWS, DualEncoder, load_encoder, open_pretrained, pin_encoder
from gapbridge.embeddings.llm2clip_towers import Llm2ClipTowers
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.config import GapbridgeVisionConfig
from gapbridge.model.images import GapbridgeImageProcessor
from gapbridge.model.vision import PooledVisionTower
from tests.embeddings.llm2clip_checkpoints import BLOCKS, TEXTS, WIDTH, save_text, save_vision
from tests.embeddings.test_transformers_towers import picture


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("llm2clip")
    return save_vision(folder / "vision"), save_text(folder / "text")


@pytest.fixture(scope="module")
def encoder(saved: tuple[Path, Path]) -> DualEncoder:
    return open_pretrained(_name(saved))


@pytest.fixture
def copy(saved: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    vision, text = (shutil.copytree(folder, tmp_path / folder.name) for folder in saved)
    return vision, text


def _name(folders: tuple[Path, Path]) -> str:
    return f"llm2clip:{folders[0]}+{folders[1]}"


def _expected(saved: tuple[Path, Path], text: str) -> Tensor:
    """One text without padding, step by step: a Llama whose mask hides nothing, the mean, the adapter."""
    language, tokenizer = LlamaModel.from_pretrained(saved[1]).eval(), AutoTokenizer.from_pretrained(saved[1])
    head = tokenizer("<|start_header_id|>user<|end_header_id|>\n\n").input_ids
    message = tokenizer(text.rstrip() + "<|eot_id|>", add_special_tokens=False).input_ids
    ids = torch.tensor([head + message])
    everything = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
    with torch.no_grad():
        states = language(input_ids=ids, attention_mask=everything).last_hidden_state[0]
    rows = nn.functional.normalize(states[len(head) :].mean(0), dim=0)
    weights = safetensors.torch.load_file(saved[0] / "model.safetensors")

    def linear(rows: Tensor, name: str) -> Tensor:
        bias = weights.get(f"text_adapter.adaptor.{name}.bias")
        return nn.functional.linear(rows, weights[f"text_adapter.adaptor.{name}.weight"], bias)

    def norm(rows: Tensor, name: str) -> Tensor:
        known = (weights[f"text_adapter.adaptor.{name}.{key}"] for key in ("weight", "bias"))
        return nn.functional.layer_norm(rows, rows.shape, *known)

    for block in range(BLOCKS):
        inner = nn.functional.gelu(linear(norm(rows, f"{block}.ln"), f"{block}.fn.0"))
        rows = rows + linear(inner, f"{block}.fn.3")
    return nn.functional.normalize(linear(norm(rows, str(BLOCKS)), str(BLOCKS + 1)), dim=0)


def test_texts_are_read_both_ways_as_messages(encoder: DualEncoder, saved: tuple[Path, Path]) -> None:
    expected = torch.stack([_expected(saved, text) for text in TEXTS]).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)
    assert (encoder.width, encoder.context_length) == (WIDTH, 512)


def test_pictures_are_read_as_transformers_does(encoder: DualEncoder, saved: tuple[Path, Path]) -> None:
    images = [picture(seed) for seed in range(3)]
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    config = encoder.image.visual.config
    model = CLIPVisionModelWithProjection.from_pretrained(saved[0], config=config).eval()
    with torch.no_grad():
        rows = model(**processor(images, return_tensors="pt")).image_embeds
    np.testing.assert_allclose(encoder.encode_images(images), nn.functional.normalize(rows, dim=-1), atol=1e-5)


@pytest.mark.parametrize("padding", [0, 5])
def test_a_late_token_changes_an_early_state(padding: int, saved: tuple[Path, Path]) -> None:
    towers = Llm2ClipTowers(f"{saved[0]}+{saved[1]}", None, "cpu")
    length = towers.lengths(TEXTS[:1])[0]
    tokens = towers.tokens(TEXTS[:1], length + padding)
    other = tokens["input_ids"].clone()
    other[0, -2] = (other[0, -2] + 1) % 256
    with torch.no_grad():
        one, two = (
            towers.model["language"](input_ids=ids, attention_mask=tokens["attention_mask"]).last_hidden_state[
                0, padding
            ]
            for ids in (tokens["input_ids"], other)
        )
    assert (one - two).abs().max() > 1e-3


def test_padding_changes_nothing(saved: tuple[Path, Path]) -> None:
    towers = Llm2ClipTowers(f"{saved[0]}+{saved[1]}", None, "cpu")
    length = towers.lengths(TEXTS[:1])[0]
    with torch.no_grad():
        rows = [towers.text_features(towers.tokens(TEXTS[:1], length + more))[0] for more in (0, 3, 40)]
    assert towers.tokens(TEXTS[:1], length + 3)["attention_mask"][0, :4].tolist() == [0, 0, 0, 1]
    for row in rows[1:]:
        torch.testing.assert_close(row, rows[0], atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_its_batch(encoder: DualEncoder) -> None:
    texts = [f"a red circle {'left ' * (number % 9)}{number}" for number in range(BATCH_ROWS + 30)]
    rows = encoder.encode_texts(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(encoder.encode_texts([texts[place] for place in order]), rows[order])
    for number in (0, 8, BATCH_ROWS, len(texts) - 1):
        np.testing.assert_array_equal(encoder.encode_texts([texts[number]])[0], rows[number])


def test_what_is_beyond_512_tokens_is_lost_and_counted(encoder: DualEncoder) -> None:
    fits = "0" * (512 - encoder.token_counts([""])[0])
    assert encoder.token_counts([fits]) == [512]
    assert encoder.truncated([fits, fits + "0"]) == 1
    rows = encoder.encode_texts([fits + "01", fits + "02"])
    np.testing.assert_array_equal(rows[0], rows[1])


def test_it_is_pinned_and_opened_again(copy: tuple[Path, Path], encoder: DualEncoder, tmp_path: Path) -> None:
    pinned = pin_encoder(tmp_path, _name(copy), None, "{}")
    assert json.loads((tmp_path / "encoder.json").read_text())["kind"] == "llm2clip"
    assert load_encoder(tmp_path).fingerprint == pinned.fingerprint == encoder.fingerprint
    _change(copy[1] / "model.safetensors", lambda state: state["norm.weight"].add_(1))
    with pytest.raises(ArtifactError, match=r"not the weights that .*encoder\.json names"):
        load_encoder(tmp_path)


def test_the_models_vision_tower_gives_the_same_vectors(encoder: DualEncoder) -> None:
    settings = json.loads(json.dumps(encoder.image.architecture))
    tower = PooledVisionTower(GapbridgeVisionConfig(hidden_size=encoder.width, architecture=settings)).eval()
    tower.visual.load_state_dict(encoder.image.visual.state_dict())
    images = [picture(seed) for seed in range(3)]
    pixels = GapbridgeImageProcessor(encoder.image.preprocess_cfg)(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = tower(pixels).pooler_output.numpy()
    np.testing.assert_allclose(found, encoder.encode_images(images), atol=1e-5)


def _change(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path, {"format": "pt"})


def _only(prefix: str) -> Callable[[dict[str, Tensor]], None]:
    def drop(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]

    return drop


@pytest.mark.parametrize(
    ("half", "change", "message"),
    [
        (0, lambda state: state.pop("vision_model.post_layernorm.bias"), "1 missing keys"),
        (0, lambda state: state.update({"text_model.more": torch.zeros(2)}), "1 unexpected keys"),
        (0, lambda state: state.pop("text_adapter.adaptor.2.ln.bias"), "text adapter: 1 missing keys"),
        (0, lambda state: state.update({"text_adapter.more": torch.zeros(2)}), "text adapter: 1 unexpected keys"),
        (0, lambda state: state.update({"text_adapter.adaptor.4.bias": torch.zeros(3)}), "text adapter: 1 mismatched"),
        (0, _only("text_adapter."), "has no text adapter, so it is no model of LLM2CLIP"),
        (1, lambda state: state.pop("layers.1.mlp.up_proj.weight"), "1 missing keys"),
        (1, lambda state: state.update(more=torch.zeros(2)), "1 unexpected keys"),
    ],
)
def test_weights_must_fill_both_models_exactly(
    half: int, change: Callable[[dict[str, Tensor]], Any], message: str, copy: tuple[Path, Path]
) -> None:
    _change(copy[half] / "model.safetensors", change)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_pretrained(_name(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("half", [0, 1])
def test_pickled_weights_are_not_read(half: int, copy: tuple[Path, Path]) -> None:
    weights = copy[half] / "model.safetensors"
    torch.save(safetensors.torch.load_file(weights), copy[half] / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ArtifactError, match="transformers cannot load it"):
        open_pretrained(_name(copy))


def test_other_models_are_refused(copy: tuple[Path, Path]) -> None:
    config = json.loads((copy[0] / "config.json").read_text())
    (copy[0] / "config.json").write_text(json.dumps({**config, "architectures": ["EvaCLIPModel"]}))
    with pytest.raises(InputError, match="is EvaCLIPModel; of LLM2CLIP's image halves the OpenAI ones can be read"):
        open_pretrained(_name(copy))
    (copy[0] / "config.json").write_text(json.dumps(config))
    tokenizer = copy[1] / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|eot_id|>", "<|other|>"))
    with pytest.raises(ArtifactError, match=r"its tokenizer has no <\|eot_id\|>"):
        open_pretrained(_name(copy))
    BertConfig().save_pretrained(copy[1])
    with pytest.raises(InputError, match="is a model of type bert; LLM2CLIP's text half is a Llama"):
        open_pretrained(_name(copy))


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("{vision}", None, r"does not name two models; give llm2clip:VISION\+TEXT"),
        ("{vision}+", None, "does not name two models"),
        ("{vision}+{text}", "abc", "is not one commit for each model"),
        ("{vision}+{text}", "abc+", "is a folder and has no revisions"),
        ("{vision}+{text}/nothing", None, "there is no such folder"),
        ("{vision}+nobody/nothing", "+abc", "nobody/nothing: cannot be fetched"),
    ],
)
def test_malformed_names_are_refused(name: str, revision: str | None, message: str, saved: tuple[Path, Path]) -> None:
    with pytest.raises((InputError, ArtifactError), match=message) as caught:
        open_pretrained("llm2clip:" + name.format(vision=saved[0], text=saved[1]), revision)
    assert "\n" not in str(caught.value)


def test_each_hub_id_has_its_own_commit(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(
        repository: str, revision: str | None, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(saved[len(asked) - 1])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    open_pretrained("llm2clip:one/vision+one/text", "abc+def")
    patterns = ["*.json", "*.safetensors"]
    assert asked == [("one/vision", "abc", patterns), ("one/text", "def", patterns)]
