"""A tiny model of random weights, saved as the directory that evaluation opens."""

from pathlib import Path

import numpy as np
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, save
from gapbridge.model.vision import build_tower
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer

WIDTH = 16
QUESTIONS = ["what color is the circle", "describe the picture", "is there a blue ring on the left", "where is it"]


def save_model(folder: Path, fingerprint: str | None = None, seeing: bool = False) -> None:
    """Write a model whose random weights are large enough that its answers differ.

    A fresh tower and adapter give nearly the same tokens for every picture; those of one that is `seeing` do not.
    """
    tokenizer = train_tokenizer(QUESTIONS * 5, 340)
    torch.manual_seed(1)
    config = Lfm2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=340, pad_token_id=0, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    language_model = Lfm2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in language_model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    architecture = {
        "embed_dim": WIDTH,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1},
    }
    preprocess = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    visual = build_tower(architecture).eval()
    if seeing:
        _redraw(visual, 0.5)
    tower = ImageTower(visual, architecture, preprocess, fingerprint)
    cap = ImageCap(np.zeros(WIDTH), np.full(WIDTH, 0.2))
    placeholder = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    model = assemble(language_model, placeholder, tower, AdapterShape(24, 3, "heads"), cap, seed=5)
    if seeing:
        _redraw(model.model.multi_modal_projector, 2.0)
    save(model, make_processor(tokenizer, tower, 3, IMAGE_TOKEN), Prompter(tokenizer).end_id, folder)


def _redraw(module: torch.nn.Module, size: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, size)


def unit_vectors(count: int) -> np.ndarray:
    """Unit vectors (count, 16), float32."""
    rows = np.random.default_rng(0).normal(size=(count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
