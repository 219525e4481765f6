"""A small model with all its parts, and dialogues about pictures for it to learn. Runs alone as one rank of several.

It needs neither polars nor open_clip, so that a bare GPU box can run it, where the shape is larger.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    PreTrainedConfig,
)

from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, placeholder, save
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.batches import packs_exactly
from gapbridge.train.examples import caption_examples, dialogue_examples
from gapbridge.train.loop import History
from gapbridge.train.optimiser import Group
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen
from gapbridge.train.visual import Course, Material, groups_of, train

ON_GPU = torch.cuda.is_available()
WIDTH, TOKENS, ROWS = 16, 3, 48
COLORS, SIDES = ("red", "blue", "green", "teal"), ("left", "right", "top")
QUESTIONS = ("what color is it", "where is it")
LORA = Lora(rank=4, alpha=16.0, dropout=0.1)
STEADY_LORA = Lora(rank=4, alpha=16.0, dropout=0.0)
"""Without dropout, of which each rank draws its own."""


class Small(NamedTuple):
    """The model, what reads for it, and its tower."""

    model: GapbridgeForConditionalGeneration
    tokenizer: Any
    prompter: Prompter
    tower: ImageTower

    def save(self, folder: Path) -> None:
        """Write the model's directory."""
        save(self.model, make_processor(self.tokenizer, self.tower, TOKENS, IMAGE_TOKEN), self.prompter.end_id, folder)


def shape(vocabulary: int) -> PreTrainedConfig:
    """Llama's; larger on a GPU."""
    hidden, layers, heads = (256, 4, 4) if ON_GPU else (32, 2, 2)
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        vocab_size=vocabulary,
        pad_token_id=0,
        initializer_range=0.1,
    )


def small(config_of: Callable[[int], PreTrainedConfig] = shape) -> Small:
    """Untrained, the same every time."""
    tokenizer = train_tokenizer([*QUESTIONS, *COLORS, *SIDES, "describe the picture", *map(caption, range(ROWS))], 330)
    torch.manual_seed(1)
    llm = AutoModelForCausalLM.from_config(config_of(len(tokenizer))).eval()
    half = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    visual = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**half, image_size=32, patch_size=16, projection_dim=WIDTH)
    ).eval()
    settings = json.loads(visual.config.to_json_string(use_diff=False))
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    architecture = {"transformers": "clip", "embed_dim": WIDTH, "image_size": 32, "vision_cfg": settings}
    tower = ImageTower(visual, architecture, {"size": 32, "transformers": json.loads(processor.to_json_string())})
    cap = ImageCap(np.zeros(WIDTH), np.full(WIDTH, 0.25))
    token_id = placeholder(tokenizer, IMAGE_TOKEN)
    model = assemble(llm, token_id, tower, AdapterShape(24, TOKENS, "heads"), cap, seed=5)
    return Small(model, tokenizer, Prompter(tokenizer), tower)


def caption(row: int) -> str:
    """What the picture of a row shows."""
    return f"{COLORS[row % len(COLORS)]} ring {SIDES[row % len(SIDES)]}"


class PictureVectors:
    """Unit vectors (n, d), alike for pictures of the same content."""

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 rows (len(places), d)."""
        kinds = [int(place) % (len(COLORS) * len(SIDES)) for place in places]
        rows = np.stack([np.random.default_rng(kind).normal(0, 1, WIDTH) for kind in kinds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def material(made: Small, stage: int = 2) -> Material:
    """Captions for stage 1, dialogues of two turns for stage 2; packed where that is exact."""
    if stage == 1:
        examples = caption_examples(made.prompter, [caption(row) for row in range(ROWS)], "describe it", TOKENS)
    else:
        answers = [(COLORS[row % len(COLORS)], SIDES[row % len(SIDES)]) for row in range(ROWS)]
        turns = [[{"question": q, "answer": a} for q, a in zip(QUESTIONS, one, strict=True)] for one in answers]
        turns = [one[:: 1 if row // 12 % 2 else -1] for row, one in enumerate(turns)]  # either question comes first
        examples = dialogue_examples(made.prompter, turns, TOKENS)
    groups = [str(row) for row in range(ROWS)]
    return Material(examples, groups, PictureVectors(), np.arange(ROWS), packs_exactly(made.model))


def course(steps: int = 12, **settings: Any) -> Course:
    """Batches of 8, a checkpoint every four steps."""
    return Course(steps, 8, 0.1, 0.98, 1.0, 4, 6, 4, seed=3, **settings)


def learners(
    made: Small, tune: str, additions: Lora = LORA, rate: float = 0.003
) -> tuple[list[Group], LoraTuning | None]:
    """The adapter, and of the language model what `tune` says."""
    model = made.model
    groups = groups_of(model.model.multi_modal_projector, 0.01, 0.0)
    if tune == "frozen":
        return groups, None
    if tune == "full":
        parts = (model.model.language_model, model.lm_head)
        distinct = {id(parameter): parameter for part in parts for parameter in part.parameters()}
        return [*groups, Group(list(distinct.values()), rate, 0.0)], None
    lora = LoraTuning(model, additions, seed=7)
    return [*groups, Group(lora.parameters, 3 * rate, 0.0)], lora


def learn(
    made: Small,
    tune: str,
    scratch: Path | None = None,
    tracker: Any = None,
    stage: int = 2,
    steps: int = 12,
    additions: Lora = LORA,
    **settings: Any,
) -> tuple[History, LoraTuning | None]:
    """Train; the additions, if any, are not merged yet."""
    rows = material(made, stage)
    groups, lora = learners(made, tune, additions)
    if settings.get("precision") == "bf16":
        shrink_frozen(made.model, groups)
    history, _ = train(made.model, groups, rows, course(steps, **settings), scratch, tracker, "small")
    return history, lora


if __name__ == "__main__":
    torch.set_num_threads(1)
    history, _ = learn(small(), sys.argv[2], additions=STEADY_LORA, gradient_checkpointing=True)
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(history.losses))
    torch.distributed.destroy_process_group()
