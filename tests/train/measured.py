"""Training at sizes whose memory can be measured.

Run as SHAPE TUNE SAMPLES [PRECISION]: alone it prints what the system says it held at most; as one of several ranks,
what torch's allocator held there.
"""

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config

from gapbridge.model.assemble import AdapterShape, ImageCap, assemble
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.footprint import Footprint, footprint
from gapbridge.train.optimiser import Group
from gapbridge.train.prompts import Example
from gapbridge.train.rehearsal import StepShape
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen
from gapbridge.train.visual import Course, Material, train

WIDTH, SAMPLES, STEPS = 64, 12, 2
ADAPTER = AdapterShape(128, 4, "heads")
LORA = Lora(8, 16.0, 0.1)
TUNES = {"stage 1": "frozen", "stage 2 full": "full", "stage 2 lora": "lora"}
SHAPES: dict[str, tuple[PreTrainedConfig, int]] = {
    "llama": (
        LlamaConfig(
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=4096,
        ),
        96,
    ),
    "qwen3": (
        Qwen3Config(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            vocab_size=12000,
            tie_word_embeddings=True,
        ),
        64,
    ),
    "deep": (
        LlamaConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=512,
        ),
        16,
    ),
}
"""Each with the tokens of a sample; of the deep one little but the weights takes memory."""


class NoiseVectors:
    """Random vectors (n, d)."""

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 rows (len(places), d)."""
        return np.random.default_rng(0).normal(size=(len(places), WIDTH)).astype(np.float32)


def build(shape: str) -> GapbridgeForConditionalGeneration:
    """The model of a shape around a language model of random weights."""
    config, _ = SHAPES[shape]
    llm = AutoModelForCausalLM.from_config(config).eval()
    return assemble(llm, config.vocab_size, None, ADAPTER, ImageCap(np.zeros(WIDTH), np.ones(WIDTH)), 0)


def learn(shape: str, tune: str, samples: int = SAMPLES, **settings: Any) -> GapbridgeForConditionalGeneration:
    """Two steps of so many samples, half of whose tokens are targets."""
    model = build(shape)
    config, length = SHAPES[shape]
    ids = np.arange(length) % 1000
    ids[1 : 1 + ADAPTER.visual_tokens] = config.vocab_size
    count = samples * STEPS
    examples = [Example(ids, np.arange(length) >= length // 2)] * count
    rows = Material(examples, [str(row) for row in range(count)], NoiseVectors(), np.arange(count), False)
    groups = [Group(list(model.model.multi_modal_projector.parameters()), 1e-3, 0.0)]
    if tune == "full":
        groups = [Group(list(model.parameters()), 1e-3, 0.0)]
    if tune == "lora":
        groups.append(Group(LoraTuning(model, LORA, 0).parameters, 1e-3, 0.0))
    if settings.get("precision") == "bf16":
        shrink_frozen(model, groups)
    course = Course(STEPS, samples, 0.1, 0.98, 1.0, 99, 99, 0, 0, **settings)
    train(model, groups, rows, course, None, None, "measured")
    return model


def estimated(shape: str, tune: str, samples: int = SAMPLES, ranks: int = 1, **settings: Any) -> Footprint:
    """Of what `learn` does, on one of the ranks that share the samples."""
    config, length = SHAPES[shape]
    mine = samples // ranks
    step = StepShape(mine, length, mine, mine * (length - length // 2))
    checkpointed = settings.get("gradient_checkpointing", False)
    bf16 = settings.get("precision") == "bf16"
    return footprint(config, ADAPTER, WIDTH, step, tune, bf16, checkpointed, LORA, ranks=ranks)  # type: ignore[arg-type]


def allocated(work: Callable[[], object], folder: Path) -> int:
    """The most bytes that torch's allocator held for tensors made while `work` ran."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    torch.set_num_threads(1)
    shape, tune, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if "RANK" in os.environ:
        settings = {"precision": sys.argv[4], "gradient_checkpointing": True} if len(sys.argv) > 4 else {}
        with tempfile.TemporaryDirectory() as folder:
            held = allocated(lambda: learn(shape, tune, samples, **settings), Path(folder))
        sys.stdout.write(f"{held}\n")  # in one piece, beside that of the other rank
        sys.exit()
    learn(shape, tune, 1)  # all code that will run is in memory now
    before = _resident()
    learn(shape, tune, samples)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
