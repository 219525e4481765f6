"""What is foreseen of a step's memory and arithmetic, beside what real steps take."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from gapbridge.train.footprint import footprint
from gapbridge.train.rehearsal import StepShape
from gapbridge.train.visual import recomputed_layers

from . import measured

EIGHT_BILLION = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                            num_key_value_heads=8, vocab_size=128256)  # fmt: skip
STEP = StepShape(8, 64, 8, 200)
ORDINARY = ["llama", "qwen3"]


def _llama(tune: str = "frozen", bf16: bool = False, **settings: object) -> object:
    config, _ = measured.SHAPES["llama"]
    return footprint(config, measured.ADAPTER, measured.WIDTH, STEP, tune, bf16, lora=measured.LORA, **settings)


@pytest.mark.parametrize("tune", measured.TUNES.values(), ids=list(measured.TUNES))
@pytest.mark.parametrize("shape", ORDINARY)
def test_memory_is_foreseen_as_torch_takes_it(shape: str, tune: str, tmp_path: Path) -> None:
    real = measured.allocated(lambda: measured.learn(shape, tune), tmp_path)
    assert measured.estimated(shape, tune).peak == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize("tune", measured.TUNES.values(), ids=list(measured.TUNES))
def test_so_it_is_in_bf16_with_recomputed_layers(tune: str, tmp_path: Path) -> None:
    settings = {"precision": "bf16", "gradient_checkpointing": True}
    real = measured.allocated(lambda: measured.learn("qwen3", tune, **settings), tmp_path)
    assert measured.estimated("qwen3", tune, **settings).peak == pytest.approx(real, rel=0.15)


def _of_two_ranks(checkout: Path, *told: str) -> list[int]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.train.measured", *told]
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True, cwd=checkout)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("shape", ORDINARY)
def test_two_ranks_keep_the_room_for_all_gradients(shape: str, checkout: Path) -> None:
    first, second = _of_two_ranks(checkout, shape, "full", "24")
    seen = measured.estimated(shape, "full", 24, ranks=2)
    assert seen.peak == pytest.approx(first, rel=0.15) == pytest.approx(second, rel=0.15)
    assert seen.gradients == pytest.approx(4 * seen.trained_parameters, rel=0.001)


def test_weights_do_not_pile_up_in_bf16_beside_themselves(checkout: Path) -> None:
    """16 bytes a parameter are weights, gradients and moments; copies of all weights in bf16 would be two more."""
    seen = measured.estimated("deep", "full", 2, 2, precision="bf16", gradient_checkpointing=True)
    assert seen.peak < 16.5 * seen.parameters
    for real in _of_two_ranks(checkout, "deep", "full", "2", "bf16"):
        assert real == pytest.approx(seen.peak, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("tune", measured.TUNES.values(), ids=list(measured.TUNES))
@pytest.mark.parametrize("shape", ORDINARY)
def test_the_system_sees_as_much(shape: str, tune: str, checkout: Path) -> None:
    """Resident memory of a process of its own, beyond what it held after a step of one sample."""
    command = [sys.executable, "-m", "tests.train.measured", shape, tune, "24"]
    # Freed blocks go back to the system at once, as far as they can.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        command, check=True, timeout=300, capture_output=True, text=True, cwd=checkout, env=environment
    )
    assert measured.estimated(shape, tune, 24).peak == pytest.approx(int(done.stdout.splitlines()[-1]), rel=0.25)


@pytest.mark.parametrize("tune", measured.TUNES.values(), ids=list(measured.TUNES))
def test_arithmetic_is_what_torch_counts(tune: str) -> None:
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the processor's own attention is not counted
        measured.learn("llama", tune)
    assert measured.estimated("llama", tune).flops * measured.STEPS == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


def test_parts_add_up_and_parameters_are_counted_exactly() -> None:
    for shape, tune in (("llama", "full"), ("qwen3", "frozen")):
        model = measured.build(shape)
        seen = measured.estimated(shape, tune)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        adapter = sum(parameter.numel() for parameter in model.model.multi_modal_projector.parameters())
        assert seen.parameters == parameters
        assert seen.trained_parameters == (parameters if tune == "full" else adapter)
        assert seen.optimiser == 8 * seen.trained_parameters
        assert seen.weights == pytest.approx(4 * parameters, rel=0.001)
        parts = (seen.weights, seen.gradients, seen.optimiser, seen.activations, seen.logits, seen.temporaries)
        assert sum(parts) == seen.peak and min(parts) >= 0


def test_recomputed_layers_bf16_a_tower_and_more_ranks_cost_what_they_should() -> None:
    plain, again, narrow = _llama(), _llama(gradient_checkpointing=True), _llama(bf16=True)
    assert again.activations < plain.activations / 2 and again.flops == plain.flops
    assert narrow.weights < 0.6 * plain.weights and narrow.activations < 0.8 * plain.activations
    assert _llama(tower_parameters=1000).peak == plain.peak + 4000
    packed = footprint(measured.SHAPES["llama"][0], measured.ADAPTER, measured.WIDTH,
                       StepShape(2, 256, 8, 200, packed=True), "frozen", False)  # fmt: skip
    assert packed.flops > plain.flops and packed.tokens == plain.tokens == 512


def test_an_eight_billion_model_needs_no_weights_and_seconds(tmp_path: Path) -> None:
    EIGHT_BILLION.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    start = time.process_time()
    seen = footprint(config, measured.ADAPTER, measured.WIDTH, STEP, "frozen", True, gradient_checkpointing=True)
    assert time.process_time() - start < 30
    with torch.device("meta"):
        llm = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert llm < seen.parameters < llm * 1.001 and seen.weights == pytest.approx(2 * llm, rel=0.01)
    full = footprint(config, measured.ADAPTER, measured.WIDTH, STEP, "full", True, gradient_checkpointing=True)
    assert full.peak > 110 * 2**30 > 5 * seen.peak
    assert seen.flops == pytest.approx(4 * (llm - 2 * 128256 * 4096) * seen.tokens, rel=0.1)


def test_additions_without_a_shape_are_an_error() -> None:
    config, _ = measured.SHAPES["llama"]
    with pytest.raises(ValueError, match="tune lora needs"):
        footprint(config, measured.ADAPTER, measured.WIDTH, STEP, "lora", False)


def test_nothing_is_left_switched_on() -> None:
    model = measured.build("llama")
    with recomputed_layers(model, True):
        assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
