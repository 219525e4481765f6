"""Tiny random checkpoints where params say that pretrained models lie, of the classes that have those names."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from gapbridge.train.tokens import train_tokenizer

from .embeddings.llm2clip_checkpoints import save_text, save_vision

_HALF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_HALF, "image_size": 32, "patch_size": 16}
_SIDE = {"height": 32, "width": 32}


def save_encoder(workspace: Path, pretrained: str, texts: list[str]) -> None:
    """The encoder that `encoder.pretrained` names: LLM2CLIP's pair, or CLIP or SigLIP as the name says."""
    kind, _, name = pretrained.partition(":")
    if kind == "llm2clip":
        vision, text = name.split("+")
        save_vision(workspace / vision)
        save_text(workspace / text)
        return
    folder = workspace / name
    tokenizer = train_tokenizer(texts, 320, chat=False)
    marks = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    text_config = {**_HALF, **marks, "max_position_embeddings": 16}
    if "siglip" in name:
        _drawn(SiglipModel(SiglipConfig(text_config=text_config, vision_config=_VISION))).save_pretrained(folder)
        SiglipImageProcessor(size=_SIDE).save_pretrained(folder)
    else:
        config = CLIPConfig(text_config=text_config, vision_config=_VISION, projection_dim=16)
        _drawn(CLIPModel(config)).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SIDE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_llm(folder: Path, texts: list[str]) -> None:
    """The language model that `llm.pretrained` names: Qwen 3 where its name says so, else Llama."""
    tokenizer = train_tokenizer(texts, 340)
    sizes = {**_HALF, "num_key_value_heads": 1, "vocab_size": len(tokenizer), "pad_token_id": 0}
    model: Any
    if "Qwen3" in folder.name:
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16, tie_word_embeddings=True))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    _drawn(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: tiny\n---\n")


def _drawn(model: PreTrainedModel) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()
