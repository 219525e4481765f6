"""Tiny random LLM2CLIP checkpoints, file by file as the published ones are laid out."""

import json
from pathlib import Path

import safetensors.torch
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
)

WIDTH, LANGUAGE_WIDTH, BLOCKS = 16, 24, 4
MARKS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
TEXTS = ["a red circle", "A blue ring left, and a red circle right of it", "red  "]


def save_vision(folder: Path) -> Path:
    """config.json and model.safetensors as LLM2CLIP-Openai-L-14-336 has them; there is no preprocessor_config.json."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    vision = {**sizes, "dropout": 0.0, "image_size": 32, "patch_size": 16, "projection_dim": WIDTH}
    config = {
        "_name_or_path": "LLM2CLIP-Openai-L-14",
        "architectures": ["LLM2CLIPModel"],
        "auto_map": {"AutoConfig": "configuration_clip.CLIPConfig", "AutoModel": "modeling_clip.LLM2CLIPModel"},
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": WIDTH,
        "text_config": {"model_type": "clip_text_model"},
        "torch_dtype": "float32",
        "transformers_version": "4.40.2",
        "vision_config": {**vision, "model_type": "clip_vision_model"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision))
    state = {**model.state_dict(), **adapter_state(), "logit_scale": torch.tensor(4.6)}
    random = {name: torch.randn_like(tensor) * 0.2 for name, tensor in state.items()}
    safetensors.torch.save_file(random, folder / "model.safetensors", {"format": "pt"})
    return folder


def adapter_state() -> dict[str, Tensor]:
    """Four blocks of norm, a layer twice as wide and back; then a norm and a projection without bias."""
    state = {}
    for block in range(BLOCKS):
        layers = {
            "fn.0": nn.Linear(LANGUAGE_WIDTH, 2 * LANGUAGE_WIDTH),
            "fn.3": nn.Linear(2 * LANGUAGE_WIDTH, LANGUAGE_WIDTH),
        }
        for name, layer in {**layers, "ln": nn.LayerNorm(LANGUAGE_WIDTH)}.items():
            state |= {f"text_adapter.adaptor.{block}.{name}.{key}": value for key, value in layer.state_dict().items()}
    norm = nn.LayerNorm(LANGUAGE_WIDTH).state_dict()
    state |= {f"text_adapter.adaptor.{BLOCKS}.{key}": value for key, value in norm.items()}
    return state | {f"text_adapter.adaptor.{BLOCKS + 1}.weight": torch.empty(WIDTH, LANGUAGE_WIDTH)}


def save_text(folder: Path) -> Path:
    """A Llama without a head and its tokenizer, which has no padding; the config names code that nobody runs."""
    tokenizer = _tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=LANGUAGE_WIDTH, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, pad_token_id=None,
    )  # fmt: skip
    model = LlamaModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    code = "McGill-NLP/LLM2Vec-Meta-Llama-3-8B-Instruct-mntp--modeling_llama_encoder.LlamaEncoderModel"
    named = {**saved, "architectures": ["LlamaEncoderModel"], "auto_map": {"AutoModel": code}}
    (folder / "config.json").write_text(json.dumps(named))
    return folder


def _tokenizer(marks: list[str] = MARKS) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts <|begin_of_text|> before a text, as Llama 3's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator([*TEXTS, "user"] * 3, trainer)
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    begin = marks[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token=marks[1], clean_up_tokenization_spaces=False
    )
