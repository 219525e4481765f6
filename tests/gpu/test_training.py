"""Both stages in bf16 on the GPU where there is one, at a tiny shape on the CPU where there is none; never skipped.

Needs torch, transformers, peft and accelerate alone, so that a bare GPU box runs it: `pytest -m gpu tests/gpu`.
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor
from gapbridge.train.batches import packs_exactly
from perf import training
from tests.train import small

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if small.ON_GPU else "cpu"
BF16 = {"precision": "bf16"}


class Stop:
    """A tracker that stops the run after some step, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        if step > self.after:
            raise KeyboardInterrupt


def _falls(losses: list[float], by: float) -> bool:
    return all(map(math.isfinite, losses)) and np.mean(losses[-3:]) < np.mean(losses[:3]) - by


def _weights(made: small.Small) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().float().cpu().clone() for name, tensor in made.model.state_dict().items()}


def test_stage_1_learns_through_a_frozen_language_model() -> None:
    made = small.small()
    before = _weights(made)
    history, _ = small.learn(made, "frozen", stage=1, steps=24, **BF16)
    assert _falls(history.losses, 0.2)
    assert next(made.model.parameters()).device.type == DEVICE
    changed = {name for name, tensor in _weights(made).items() if not torch.allclose(tensor, before[name], rtol=0.01)}
    assert changed and all("multi_modal_projector" in name for name in changed)


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_stage_2_learns_and_the_saved_model_answers(tune: str, tmp_path: Path) -> None:
    """As the whole model did before it was saved, in batches padded on the left, from vectors and from pictures."""
    made = small.small()
    history, lora = small.learn(made, tune, steps={"full": 40, "lora": 60}[tune], gradient_checkpointing=True, **BF16)
    assert _falls(history.losses, 1.0)
    made.model.cpu().float()
    if lora:
        lora.merge()
    made.save(tmp_path)
    predictor = Predictor.load(tmp_path, batch_size=5)
    assert predictor.model.device.type == DEVICE
    requests = [Request("it", question, place, 6) for question in small.QUESTIONS[:2] for place in range(12)]
    vectors = small.PictureVectors().read(np.arange(12))
    answers = predictor.answers(requests, predictor.embedded(vectors), None)
    expected = [*(small.COLORS[row % 4] for row in range(12)), *(small.SIDES[row % 3] for row in range(12))]
    right = sum(answer == told for answer, told in zip(answers, expected, strict=True))
    assert right > 12, answers
    beside = Predictor(made.model, made.prompter, made.tokenizer, None, 24)
    same = beside.answers(requests, beside.embedded(vectors), None)
    assert sum(one == other for one, other in zip(answers, same, strict=True)) >= 22
    picture = Image.new("RGB", (40, 30), "red")
    assert isinstance(predictor.answers(requests[:1], predictor.pictured([picture]), None)[0], str)


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_a_killed_run_goes_on(tune: str, tmp_path: Path) -> None:
    """With the same bytes on the CPU; on a GPU sums may come in another order."""
    settings: dict[str, Any] = {"gradient_checkpointing": tune == "lora", **BF16}
    whole = small.small()
    expected, _ = small.learn(whole, tune, **settings)
    with pytest.raises(KeyboardInterrupt):
        small.learn(small.small(), tune, tmp_path, Stop(6), **settings)
    resumed = small.small()
    history, _ = small.learn(resumed, tune, tmp_path, Stop(99), **settings)
    assert history.losses == pytest.approx(expected.losses, rel=0.02 if small.ON_GPU else 0)
    if not small.ON_GPU:
        ends = _weights(whole), _weights(resumed)
        assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_recomputed_layers_give_the_same_losses() -> None:
    losses = [
        small.learn(small.small(), "lora", steps=6, gradient_checkpointing=again, **BF16)[0].losses
        for again in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.01 if small.ON_GPU else 0)


def test_packed_samples_do_not_see_each_other() -> None:
    """In fp32 exactly, in bf16 to within its rounding."""
    made = small.small()
    model = made.model.to(DEVICE).eval()
    assert packs_exactly(model)
    ids = [torch.tensor(made.prompter.ask(question), device=DEVICE) for question in small.QUESTIONS]
    positions = torch.cat([torch.arange(len(one), device=DEVICE) for one in ids])[None]
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        together = model(input_ids=torch.cat(ids)[None], position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=one[None], use_cache=False).logits[0] for one in ids])
    assert (together - alone).abs().max() < 0.03 * alone.abs().max()


def test_the_auto_classes_open_what_bf16_training_saved(tmp_path: Path) -> None:
    made = small.small()
    small.learn(made, "frozen", steps=2, **BF16)
    made.model.cpu().float()
    made.save(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16).to(DEVICE)
    processor = AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(images=Image.new("RGB", (40, 30)), text="<image>where is it", return_tensors="pt").to(DEVICE)
    answer = model.generate(**inputs, max_new_tokens=4)
    assert answer.shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("name", ["stage1", "stage2-full-parts"])
def test_the_benchmark_measures_what_training_does(name: str) -> None:
    found = training.measure(training.SHAPES["tiny"], training.CASES[name])
    assert found["samples_per_second"] > 0 and found["tokens_per_second"] > found["samples_per_second"]
    assert (found["peak_memory_bytes"] is None) != small.ON_GPU
    assert found["samples_per_step"] == {"stage1": 16, "stage2-full-parts": 8}[name]


def test_a_killed_benchmark_leaves_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([40.0, 10.0])

    def measure(*_: Any) -> dict[str, Any]:
        try:
            return {"samples_per_second": next(rates)}
        except StopIteration:
            raise KeyboardInterrupt from None

    out = tmp_path / "figures.json"
    monkeypatch.setattr(training, "measure", measure)
    cases = ["stage1", "stage1-repeat", "stage2-lora"]
    monkeypatch.setattr(sys, "argv", ["training", "--shape", "tiny", "--out", str(out), "--cases", *cases])
    with pytest.raises(KeyboardInterrupt):
        training.main()
    report = json.loads(out.read_text())
    assert list(report["cases"]) == cases[:2] and report["stage1_speedup_over_repeat"] == 4.0
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12),
                                            ("Another", None)])  # fmt: skip
def test_a_known_gpu_has_its_peak(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert training.peak_flops() == peak


@pytest.mark.slow
def test_the_benchmark_needs_what_a_gpu_box_has(checkout: Path) -> None:
    code = "import sys\nfor name in ('polars', 'pandera', 'open_clip'): sys.modules[name] = None\nimport perf.training"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=checkout)
