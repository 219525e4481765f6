"""Puts encoder, adapter and language model together, and writes the result as an ordinary model directory.

Shapes: `d` width of the encoder's vectors, `k` visual tokens, `h` width of the language model, `v` vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from gapbridge.errors import InputError
from gapbridge.model.adapter import Adapter
from gapbridge.model.config import GapbridgeConfig, GapbridgeVisionConfig
from gapbridge.model.images import GapbridgeImageProcessor
from gapbridge.model.processor import GapbridgeProcessor, picture_template
from gapbridge.model.vision import PooledVisionTower
from gapbridge.model.vlm import GapbridgeForConditionalGeneration

_FILE_MODE = 0o644
_LOGIT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ImageTower:
    """The image half of an open_clip encoder, with the settings to build and feed it again."""

    visual: nn.Module
    architecture: dict[str, Any]
    """open_clip's `model_cfg`."""
    preprocess_cfg: dict[str, Any]
    """open_clip's `preprocess_cfg`."""
    fingerprint: str | None = None
    """The encoder's, where it is known."""


@dataclass(frozen=True)
class AdapterShape:
    """How the adapter is built."""

    hidden_size: int
    visual_tokens: int
    expansion: Literal["heads", "repeat"]


@dataclass(frozen=True)
class ImageCap:
    """Where the unit vectors of images lie: their mean (d,) and the standard deviation of each number (d,)."""

    mean: np.ndarray
    std: np.ndarray


def assemble(
    language_model: PreTrainedModel,
    image_token_id: int,
    tower: ImageTower | None,
    shape: AdapterShape,
    cap: ImageCap,
    seed: int,
    fingerprint: str | None = None,
) -> GapbridgeForConditionalGeneration:
    """The whole model: the language model's and the encoder's own weights, an adapter drawn from `seed`.

    Without a tower it reads vectors alone, those of the encoder with that `fingerprint` where it is known: all that
    stage 1 needs, and all that there is where vectors were brought along.
    Raises InputError when the language model computes its logits in a way that this model would not keep.
    """
    config = _config(language_model, image_token_id, tower, shape, len(cap.mean))
    config.vision_config.encoder_fingerprint = (tower and tower.fingerprint) or fingerprint
    with torch.device("meta"):  # every part is replaced at once
        model = GapbridgeForConditionalGeneration(config)
    model.lm_head = language_model.get_output_embeddings()
    model.model.language_model = getattr(language_model, language_model.base_model_prefix)
    model.model.vision_tower = _tower(config.vision_config, tower) if tower else None
    model.model.multi_modal_projector = _adapter(config, cap, model.get_input_embeddings().weight, seed)
    _demand_same_logits(language_model, model)
    return model.eval()


def placeholder(tokenizer: Any, image_token: str) -> int:
    """The id of the placeholder, which the tokenizer learns if it lacks it.

    It may lie outside the language model's vocabulary: the model never looks it up.
    """
    if image_token not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [image_token]})
    token_id: int = tokenizer.convert_tokens_to_ids(image_token)
    return token_id


def make_processor(
    tokenizer: Any, tower: ImageTower | None, visual_tokens: int, image_token: str
) -> GapbridgeProcessor:
    """The processor of the model; the tokenizer learns the placeholder and a padding token where it lacks one.

    Without a tower it refuses pictures.
    """
    placeholder(tokenizer, image_token)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or _any_marker(tokenizer, image_token)
    # Some tokenizers write down what they were made with, whatever was set since.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    template = picture_template(tokenizer.chat_template, image_token)
    images = GapbridgeImageProcessor(tower.preprocess_cfg if tower else None)
    return GapbridgeProcessor(images, tokenizer, visual_tokens, image_token, chat_template=template)


def _any_marker(tokenizer: Any, image_token: str) -> str:
    """Padding is never looked at, so that any special token will do, but for the placeholder of pictures."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content != image_token:
            marker: str = token.content
            return marker
    raise InputError("llm.pretrained: its tokenizer has no special token to pad with; pin another")


def save(model: GapbridgeForConditionalGeneration, processor: GapbridgeProcessor, end_id: int, folder: Path) -> None:
    """Write the directory that AutoModelForImageTextToText, AutoProcessor and pipeline read: safetensors and JSON.

    Answers end at the token `end_id`; generation is greedy unless it is told otherwise.
    """
    pad_id = processor.tokenizer.pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=end_id, pad_token_id=pad_id, do_sample=False)
    # Where the language model was read from is of this machine alone; transformers would write it down.
    model.config.text_config._name_or_path = ""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(_FILE_MODE)  # safetensors writes for the owner alone


def _config(
    language_model: PreTrainedModel, image_token_id: int, tower: ImageTower | None, shape: AdapterShape, width: int
) -> GapbridgeConfig:
    pictures = {}
    if tower:
        pictures = {
            "image_size": _image_size(tower.preprocess_cfg),
            "architecture": tower.architecture,
        }
    return GapbridgeConfig(
        vision_config=GapbridgeVisionConfig(hidden_size=width, **pictures),
        text_config=language_model.config.get_text_config(),
        image_token_index=image_token_id,
        image_seq_length=shape.visual_tokens,
        visual_tokens=shape.visual_tokens,
        adapter_hidden_size=shape.hidden_size,
        expansion=shape.expansion,
        dtype=str(language_model.dtype).removeprefix("torch."),
    )


def _image_size(preprocess_cfg: dict[str, Any]) -> int:
    size = preprocess_cfg["size"]
    return size if isinstance(size, int) else max(size)


def _tower(config: GapbridgeVisionConfig, tower: ImageTower) -> PooledVisionTower:
    built = PooledVisionTower(config)
    built.visual.load_state_dict(tower.visual.state_dict())
    return built.eval()


def _adapter(config: GapbridgeConfig, cap: ImageCap, embeddings: torch.Tensor, seed: int) -> Adapter:
    """Drawn on the CPU, so that the same seed gives the same numbers anywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = Adapter(config)
    scale = float(np.asarray(cap.std, dtype=np.float64).mean())
    adapter.calibrate(torch.from_numpy(np.asarray(cap.mean, dtype=np.float64)), scale, _token_scale(embeddings))
    return adapter


def _token_scale(embeddings: torch.Tensor) -> float:
    """Standard deviation of the language model's token embeddings (v, h)."""
    return embeddings.detach().float().std().item()


def _demand_same_logits(language_model: PreTrainedModel, model: GapbridgeForConditionalGeneration) -> None:
    """Some families scale or shift logits outside the parts that were taken over: find out on a few tokens."""
    ids = torch.arange(1, 6, device=language_model.device)[None] % language_model.config.get_text_config().vocab_size
    with torch.no_grad():
        expected = language_model.eval()(input_ids=ids).logits.float()
        found = model.eval()(input_ids=ids).logits.float()
    if not torch.allclose(found, expected, atol=_LOGIT_TOLERANCE * expected.abs().max().item()):
        family = language_model.config.model_type
        raise InputError(f"llm.pretrained: the {family} family computes logits in a way not kept here; pin another")
