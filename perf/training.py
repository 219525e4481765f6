"""How fast both stages train, how much memory they take, and which share of the processor's arithmetic they use.

Run: `python -m perf.training --shape llama-3-8b --out FILE [--cases NAME …]` on one GPU, or with `--shape tiny`
anywhere. Weights are random and made on the device, so nothing is downloaded; samples are random ids of the lengths
that captions and dialogues have; every case goes through `train.visual.train`, as the stages do, and nothing is
written while it trains. Beside each stage stands the way of the paper's own code, which repeats the vector 576 times.
FILE is written after every case. Needs torch, transformers, peft and accelerate, but neither polars nor open_clip.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import LlamaConfig, PreTrainedConfig

from gapbridge.model.assemble import AdapterShape
from gapbridge.model.config import GapbridgeConfig, GapbridgeVisionConfig
from gapbridge.model.vision import build_tower
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.batches import Batches
from gapbridge.train.examples import target_loss
from gapbridge.train.footprint import Tune, footprint, step_flops
from gapbridge.train.loop import autocast
from gapbridge.train.optimiser import Group, Optimiser
from gapbridge.train.prompts import Example
from gapbridge.train.rehearsal import StepShape
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen
from gapbridge.train.visual import Course, Material, groups_of, recomputed_layers, train

REPEATS = 576
_WARM_STEPS = 2
_LORA = Lora(16, 32.0, 0.05)
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 products a second, by a word of the GPU's name (the makers' data sheets)."""


@dataclass(frozen=True)
class Shape:
    """A size of everything: the language model, the vector's width, the adapter, the tower, the samples, the steps."""

    llm: PreTrainedConfig
    width: int
    adapter_hidden_size: int
    tower: dict[str, int]
    """Of a CLIP vision transformer; it lies in memory and does not run, since training reads vectors."""
    stage1_samples: int
    stage2_samples: int
    caption_tokens: int
    dialogue_tokens: int
    steps: int
    visual_tokens: int = 8


_CLIP_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
               "image_size": 336, "patch_size": 14}  # fmt: skip
_CLIP_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip


def _llama(hidden: int, inner: int, layers: int, heads: int, pairs: int, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                       num_key_value_heads=pairs, vocab_size=vocabulary, max_position_embeddings=8192)  # fmt: skip


SHAPES = {
    "tiny": Shape(_llama(64, 128, 2, 4, 2, 512), 32, 64, _CLIP_TINY, 16, 8, 24, 48, 6),
    "small": Shape(_llama(2048, 8192, 16, 32, 8, 128256), 1280, 2048, _CLIP_LARGE, 32, 8, 64, 200, 12),
    "llama-3-8b": Shape(_llama(4096, 14336, 32, 32, 8, 128256), 1280, 4096, _CLIP_LARGE, 32, 8, 64, 200, 12),
}


@dataclass(frozen=True)
class Case:
    """One way to train. With `repeat` the vector fills 576 places and a batch holds a quarter of the samples."""

    stage: int
    tune: Literal["frozen", "lora", "full", "parts"] = "frozen"
    repeat: bool = False
    checkpointing: bool = False


CASES = {
    "stage1": Case(1),
    "stage1-repeat": Case(1, repeat=True),
    "stage2-lora": Case(2, "lora", checkpointing=True),
    "stage2-lora-repeat": Case(2, "lora", repeat=True, checkpointing=True),
    "stage1-checkpointing": Case(1, checkpointing=True),
    "stage2-lora-plain": Case(2, "lora"),
    "stage2-full-parts": Case(2, "parts", checkpointing=True),
    "stage2-full": Case(2, "full", checkpointing=True),
}


class NoiseVectors:
    """Random unit vectors (n, d)."""

    def __init__(self, width: int) -> None:
        self._rows = np.random.default_rng(0).normal(size=(256, width)).astype(np.float32)
        self._rows /= np.linalg.norm(self._rows, axis=1, keepdims=True)

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 rows (len(places), d)."""
        return self._rows[places % len(self._rows)]


class Clock:
    """A tracker that keeps the seconds of every step; the loop reads a step's loss before it reports.

    On a GPU they are of the clock, on the CPU of this process alone, whatever else runs there.
    """

    def __init__(self) -> None:
        self._now = time.perf_counter if torch.cuda.is_available() else time.process_time
        self.marks = [self._now()]

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Called once a step."""
        if "loss" in values:
            self.marks.append(self._now())

    @property
    def seconds(self) -> list[float]:
        """Of every step but the first ones, which warm up."""
        return np.diff(self.marks)[_WARM_STEPS:].tolist()


def measure(shape: Shape, case: Case) -> dict[str, Any]:
    """Figures of one case on the GPU, or on the CPU where there is none."""
    samples = shape.stage1_samples if case.stage == 1 else shape.stage2_samples
    if case.repeat:
        samples, shape = max(1, samples // 4), replace(shape, visual_tokens=REPEATS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    material = _material(shape, case, samples)
    course = Course(shape.steps, samples, 0.1, 0.98, 1.0, 10**9, 10**9, 0, 0, "bf16", case.checkpointing)
    model = _model(shape, case, device)
    groups = _groups(model, shape, case)
    shrink_frozen(model, groups)
    _forget_peak(device)
    if case.tune == "parts":
        return _parts(model, shape, case, material, course)
    foreseen = _estimate(shape, case.tune, case, _shapes(material, course))
    clock = Clock()
    history, figures = train(model, groups, material, course, None, clock, "measured")
    batches = _shapes(material, course)
    flops = statistics.mean(step_flops(model, batch) for batch in batches)
    seconds = statistics.median(clock.seconds)
    return {
        **_rates(batches, seconds, flops, figures["useful_token_share"]),
        "peak_memory_bytes": _peak(device),
        "estimated_peak_memory_bytes": foreseen,
        "trained_parameters": figures["trained_parameters"],
        "first_loss": round(history.losses[0], 4),
        "last_loss": round(history.losses[-1], 4),
    }


def _parts(
    model: GapbridgeForConditionalGeneration, shape: Shape, case: Case, material: Material, course: Course
) -> dict[str, Any]:
    """Full tuning where moments of all weights do not fit: the passes in bf16 without them, AdamW on one layer's.

    The passes are those of the whole model with gradients of all its weights, in bf16; the optimiser's part is timed
    on the fp32 weights of one layer and taken as many times as they go into all.
    """
    parameters = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    parameters += list(model.model.multi_modal_projector.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    batches = Batches(material.examples, material.vectors, material.places, course.batch_size, 0, packed=True)
    device = next(model.parameters()).device

    def passes(step: int) -> None:
        batch = batches(step, 0, 1)
        inputs = {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
        with autocast(device.type, bf16=True):
            total = target_loss(model, inputs).total
        (total / batch["targets"]).backward()
        for parameter in parameters:
            parameter.grad = None

    with recomputed_layers(model.train(), case.checkpointing):
        through = _timed(passes, shape.steps)
    flops = statistics.mean(step_flops(model, batch) for batch in _shapes(material, course))
    peak, count = _peak(device.type), sum(parameter.numel() for parameter in parameters)
    layer = [torch.nn.Parameter(one.detach().float()) for one in model.model.language_model.layers[0].parameters()]
    optimiser = Optimiser([Group(layer, 1e-5, 0.0)], 0.98)
    for parameter in layer:
        parameter.grad = torch.zeros_like(parameter)
    own = sum(parameter.numel() for parameter in layer)
    stepping = _timed(lambda _: optimiser.step(), shape.steps) * count / own
    return {
        **_rates(_shapes(material, course), through + stepping, flops, batches.useful_share(shape.steps)),
        "peak_memory_bytes": peak,
        "trained_parameters": count,
        "seconds_of_passes": round(through, 5),
        "seconds_of_optimiser_from_one_layer": round(stepping, 5),
    }


def _timed(work: Callable[[int], object], steps: int) -> float:
    """Median seconds of a step, the first ones apart."""
    clock = Clock()
    for step in range(steps):
        work(step)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        clock.log_metrics({"loss": 0.0}, step)
    return statistics.median(clock.seconds)


def _rates(batches: list[StepShape], seconds: float, flops: float, useful_share: float) -> dict[str, Any]:
    samples = statistics.mean(batch.samples for batch in batches)
    tokens = statistics.mean(batch.rows * batch.row_tokens for batch in batches) * useful_share
    peak = peak_flops()
    return {
        "samples_per_step": samples,
        "tokens_per_step": round(tokens, 1),
        "seconds_per_step": round(seconds, 5),
        "samples_per_second": round(samples / seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "model_tflops_per_step": round(flops / 1e12, 6),
        "model_flops_use": round(flops / seconds / peak, 4) if peak else None,
    }


def peak_flops() -> float | None:
    """The GPU's dense bf16 products a second; None where there is none or its name is not in the table."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for word, peak in _PEAK_FLOPS.items() if word in name), None)


def _material(shape: Shape, case: Case, samples: int) -> Material:
    """Random ids; about a quarter longer or shorter than the mean. Captions are targets whole, dialogues in half."""
    random = np.random.default_rng(1)
    mean = shape.caption_tokens if case.stage == 1 else shape.dialogue_tokens
    examples = []
    for _ in range(samples * shape.steps):
        words = int(mean * random.uniform(0.75, 1.25))
        before = 12 + shape.visual_tokens  # the template's own tokens, and a short instruction
        ids = random.integers(0, shape.llm.vocab_size, before + words)
        ids[4 : 4 + shape.visual_tokens] = shape.llm.vocab_size  # the placeholder
        first = before if case.stage == 1 else before + words // 2
        examples.append(Example(ids, np.arange(len(ids)) >= first))
    places = np.arange(len(examples))
    return Material(examples, [str(place) for place in places], NoiseVectors(shape.width), places, packed=True)


def _shapes(material: Material, course: Course) -> list[StepShape]:
    """Of the steps that count, as `train` makes them from the same rows and seed."""
    order = np.arange(len(material.examples))
    batches = Batches(material.examples, material.vectors, order, course.batch_size, course.seed, material.packed)
    made = [batches(step, 0, 1) for step in range(_WARM_STEPS, course.steps or 0)]
    shapes = (one["input_ids"].shape for one in made)
    return [
        StepShape(rows, row_tokens, one["samples"], one["targets"], packed=True)
        for one, (rows, row_tokens) in zip(made, shapes, strict=True)
    ]


def _model(shape: Shape, case: Case, device: str) -> GapbridgeForConditionalGeneration:
    config = GapbridgeConfig(
        vision_config=GapbridgeVisionConfig(hidden_size=shape.width, architecture=_tower(shape)),
        text_config=shape.llm,
        image_token_index=shape.llm.vocab_size,
        image_seq_length=shape.visual_tokens,
        visual_tokens=shape.visual_tokens,
        adapter_hidden_size=shape.adapter_hidden_size,
        expansion="repeat" if case.repeat else "heads",
        dtype="float32",
    )
    with torch.device(device):
        return GapbridgeForConditionalGeneration(config).to(device)


def _estimate(shape: Shape, tune: Tune, case: Case, batches: list[StepShape]) -> int:
    """What `train.footprint` foresees for the longest of the batches."""
    longest = max(batches, key=lambda batch: batch.rows * batch.row_tokens)
    with torch.device("meta"):
        tower = build_tower(_tower(shape))
    adapter = AdapterShape(shape.adapter_hidden_size, shape.visual_tokens, "repeat" if case.repeat else "heads")
    count = sum(parameter.numel() for parameter in tower.parameters())
    return footprint(shape.llm, adapter, shape.width, longest, tune, True, case.checkpointing, _LORA, count).peak


def _tower(shape: Shape) -> dict[str, Any]:
    return {"transformers": "clip", "vision_cfg": {**shape.tower, "projection_dim": shape.width}}


def _groups(model: GapbridgeForConditionalGeneration, shape: Shape, case: Case) -> list[Group]:
    groups = groups_of(model.model.multi_modal_projector, 5e-4, 0.0)
    if case.tune == "lora":
        groups.append(Group(LoraTuning(model, _LORA, 0).parameters, 1e-5, 0.0))
    if case.tune == "full":
        groups += [
            group for part in (model.model.language_model, model.lm_head) for group in groups_of(part, 1e-5, 0.0)
        ]
    return groups


def _forget_peak(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int | None:
    """Bytes that tensors held at most since `_forget_peak`; None on the CPU, where nobody counts them."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def _surroundings(shape_name: str) -> dict[str, Any]:
    shape = SHAPES[shape_name]
    packages = ("torch", "transformers", "peft", "accelerate", "numpy")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, threads: {torch.get_num_threads()}"
    return {
        "command": f"python -m perf.training --shape {shape_name}",
        "device": device,
        "seconds_are_of": "the clock" if torch.cuda.is_available() else "the process",
        "peak_flops": peak_flops(),
        "precision": "bf16",
        "visual_tokens": shape.visual_tokens,
        "repeats": REPEATS,
        "lora": {"rank": _LORA.rank, "targets": _LORA.targets},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _attempt(shape: Shape, case: Case) -> dict[str, Any]:
    try:
        return measure(shape, case)
    except torch.cuda.OutOfMemoryError:
        return {"error": "the GPU's memory does not hold it"}


def main() -> None:
    """Measure the cases in order; a killed run leaves those that were done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after every case")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--only", choices=list(CASES), help="this case alone")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else arguments.cases
    report: dict[str, Any] = {**_surroundings(arguments.shape), "cases": {}}
    for name in names:
        report["cases"][name] = _attempt(SHAPES[arguments.shape], CASES[name])
        for pair in ("stage1", "stage2-lora"):
            few, many = (report["cases"].get(one, {}).get("samples_per_second") for one in (pair, f"{pair}-repeat"))
            if few and many:
                report[f"{pair}_speedup_over_repeat"] = round(few / many, 2)
        partial = arguments.out.with_name(f".{arguments.out.name}.partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(arguments.out)
        print(name, json.dumps(report["cases"][name]), flush=True)
        _forget_peak("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
