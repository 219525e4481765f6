"""A tiny model of random weights: a ResNet tower of 32 pixels and width 16, and a language model of width 32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, placeholder, save
from gapbridge.model.vision import build_tower
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer

WIDTH, HIDDEN, TOKENS = 16, 32, 3
WORDS = ["a red circle on the left", "what color is the circle", "describe the picture", "is there a blue ring", "yes"]
_SHAPE = {"hidden_size": HIDDEN, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 340}
_SMALL = {**_SHAPE, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = {
    "lfm2": Lfm2Config(
        **_SMALL, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False, tie_word_embeddings=False
    ),
    "llama": LlamaConfig(**_SMALL),
    "qwen2": Qwen2Config(**_SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**_SMALL, head_dim=16),
    "mistral": MistralConfig(**_SMALL, sliding_window=8),
    "phi3": Phi3Config(**_SMALL),
    "gemma3": Gemma3TextConfig(
        **_SMALL, head_dim=16, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma2": Gemma2Config(**_SMALL, head_dim=16, final_logit_softcapping=2.0),
}


def language_model(family: str) -> PreTrainedModel:
    """A language model of that family; weights large enough that answers differ."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


def image_tower() -> ImageTower:
    """An open_clip tower whose batch norm has seen something."""
    architecture = {
        "embed_dim": WIDTH,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    visual = build_tower(architecture)
    visual.train()(torch.randn(8, 3, 32, 32))
    preprocess = {"size": [32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    return ImageTower(visual.eval(), architecture, preprocess)


def pictures(count: int = 4) -> list[Image.Image]:
    """Pictures of noise, none of the tower's own size."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 52, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer of 340 pieces with the chat template of the tiny language model."""
    return train_tokenizer(WORDS * 5, 340)


@pytest.fixture(scope="session")
def build(tokenizer: Any) -> Callable[..., GapbridgeForConditionalGeneration]:
    """Builds a model around a language model of the family that is asked for."""

    def make(family: str = "lfm2", expansion: Any = "heads") -> GapbridgeForConditionalGeneration:
        cap = ImageCap(np.linspace(-0.1, 0.2, WIDTH), np.full(WIDTH, 0.2))
        shape = AdapterShape(24, TOKENS, expansion)
        return assemble(language_model(family), placeholder(tokenizer, IMAGE_TOKEN), image_tower(), shape, cap, seed=5)

    return make


@pytest.fixture(scope="session")
def saved(build: Callable[..., GapbridgeForConditionalGeneration], tokenizer: Any, tmp_path_factory: Any) -> Path:
    """A saved model directory."""
    folder = tmp_path_factory.mktemp("model")
    processor = make_processor(tokenizer, image_tower(), TOKENS, IMAGE_TOKEN)
    save(build(), processor, Prompter(tokenizer).end_id, folder)
    return folder
