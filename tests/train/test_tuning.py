"""LoRA and gradient checkpointing on a whole small model: what learns, what comes out, on one rank and on two."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import Lfm2Config, PreTrainedConfig, Qwen2Config
from transformers.modeling_layers import GradientCheckpointingLayer

from gapbridge.errors import InputError
from gapbridge.train import visual
from gapbridge.train.tuning import Lora, LoraTuning

from . import small

_SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
          "num_key_value_heads": 2, "pad_token_id": 0}  # fmt: skip


def _convolutions(vocabulary: int) -> PreTrainedConfig:
    layers = ["conv", "full_attention"]
    return Lfm2Config(**_SHAPE, vocab_size=vocabulary, layer_types=layers, block_auto_adjust_ff_dim=False)


def _tied(vocabulary: int) -> PreTrainedConfig:
    return Qwen2Config(**_SHAPE, vocab_size=vocabulary, tie_word_embeddings=True)


SHAPES: dict[str, Callable[[int], PreTrainedConfig]] = {
    "llama": small.shape,
    "convolutions": _convolutions,
    "tied": _tied,
}


def _weights(made: small.Small) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.model.state_dict().items()}


def _logits(made: small.Small) -> torch.Tensor:
    ids = torch.tensor([made.prompter.ask("where is it", small.TOKENS)])
    vectors = torch.from_numpy(small.PictureVectors().read([3]))
    with torch.no_grad():
        return made.model(input_ids=ids, visual_embeds=vectors).logits


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_merged_additions_answer_as_they_did_beside_the_weights(shape: str) -> None:
    made = small.small(SHAPES[shape])
    before = _weights(made)
    history, lora = small.learn(made, "lora")
    assert history.losses[-1] < history.losses[0] - 0.2
    made.model.cpu()
    beside = _logits(made)
    lora.merge()
    torch.testing.assert_close(_logits(made), beside, rtol=1e-4, atol=1e-4)
    after = made.model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {f"{name}.weight" for name, module in made.model.model.language_model.named_modules()
              if isinstance(module, torch.nn.Linear)}  # fmt: skip
    projector = "model.multi_modal_projector."
    adapter = {f"{projector}{name}" for name, _ in made.model.model.multi_modal_projector.named_parameters()}
    assert changed == {f"model.language_model.{name}" for name in linear} | adapter


def test_only_the_named_layers_get_additions() -> None:
    made = small.small()
    lora = LoraTuning(made.model, Lora(2, 4.0, 0.0, ("q_proj", "v_proj")), 0)
    names = [name for name, _ in made.model.named_parameters() if "lora_" in name]
    assert len(names) == len(lora.parameters) == 2 * 2 * made.model.config.text_config.num_hidden_layers
    assert all(".q_proj." in name or ".v_proj." in name for name in names)


def test_an_unknown_layer_is_named_beside_those_there_are() -> None:
    with pytest.raises(
        InputError, match=r"instruct\.lora\.targets: lm_head, query: no linear layer .* down_proj, gate"
    ):
        LoraTuning(small.small().model, Lora(2, 4.0, 0.0, ("q_proj", "query", "lm_head")), 0)


def test_the_same_seed_draws_the_same_additions_and_disturbs_nobody() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn = [LoraTuning(small.small().model, small.LORA, seed).parameters[0] for seed in (4, 4, 5)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    torch.manual_seed(0)
    made = small.small()
    torch.manual_seed(0)
    LoraTuning(made.model, small.LORA, 9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_a_checkpoint_holds_moments_of_what_learns_alone(tune: str, tmp_path: Path) -> None:
    made = small.small()
    frozen = {name for name, _ in made.model.named_parameters() if "multi_modal_projector" not in name}
    small.learn(made, tune, tmp_path, steps=4)
    with safe_open(tmp_path / "small.safetensors", framework="pt") as file:
        names = {name for name in file.keys() if not name.startswith("buffers/")}  # noqa: SIM118, no mapping
    kinds = {kind: {name.partition("/")[2] for name in names if name.startswith(f"{kind}/")}
             for kind in ("weights", "exp_avg", "exp_avg_sq", "step")}  # fmt: skip
    assert kinds["weights"] == kinds["exp_avg"] == kinds["exp_avg_sq"] == kinds["step"]
    assert sum(len(one) for one in kinds.values()) == len(names)
    learned = {name for name in kinds["weights"] if "multi_modal_projector" not in name}
    assert not [name for name in kinds["weights"] if "vision_tower" in name]
    if tune == "full":
        assert learned == {name for name in frozen if "vision_tower" not in name}
    else:
        assert all("lora_" in name for name in learned) and bool(learned) == (tune == "lora")


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_recomputed_layers_give_the_same_losses(shape: str, tune: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are computed again: each layer runs twice a step, dropout and all."""
    calls = {False: 0, True: 0}
    losses, weights = {}, {}
    for recomputed in (False, True):
        made = small.small(SHAPES[shape])
        layer = next(
            one for one in made.model.model.language_model.modules() if isinstance(one, GradientCheckpointingLayer)
        )
        norm = next(one for name, one in layer.named_modules() if name.endswith("norm"))

        def count(*_: Any, recomputed: bool = recomputed) -> None:
            calls[recomputed] += torch.is_grad_enabled()

        norm.register_forward_hook(count)
        history, _ = small.learn(made, tune, steps=4, gradient_checkpointing=recomputed)
        losses[recomputed], weights[recomputed] = history.losses, _weights(made)
        assert not any(getattr(module, "gradient_checkpointing", False) for module in made.model.modules())
    assert losses[True] == losses[False]
    assert all(torch.equal(weights[True][name], weights[False][name]) for name in weights[True])
    assert calls[False] >= 4 and calls[True] == 2 * calls[False]


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_two_ranks_match_one_with_recomputed_layers(tune: str, tmp_path: Path, checkout: Path) -> None:
    result = tmp_path / "losses.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.train.small", str(result), tune]
    subprocess.run(command, check=True, timeout=120, capture_output=True, cwd=checkout)
    one = small.learn(small.small(), tune, additions=small.STEADY_LORA)[0].losses
    assert json.loads(result.read_text()) == pytest.approx(one, abs=1e-4)


def test_checkpointing_is_undone_when_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.small()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(visual, "fit", fail)
    with pytest.raises(KeyboardInterrupt):
        small.learn(made, "frozen", gradient_checkpointing=True)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in made.model.modules())


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_bf16_keeps_what_learns_in_fp32(tune: str) -> None:
    made = small.small()
    history, lora = small.learn(made, tune, precision="bf16")
    assert history.losses[-1] < history.losses[0] - 0.2
    dtypes = {name: one.dtype for name, one in made.model.named_parameters() if "vision_tower" not in name}
    narrow = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert narrow == {name for name in dtypes if "lora_" not in name and "multi_modal" not in name} - (
        set(dtypes) if tune == "full" else set()
    )
    plain = small.learn(small.small(), tune, precision="fp32")[0].losses
    assert history.losses != plain and history.losses == pytest.approx(plain, rel=0.15)
    made.model.cpu().float()
    if lora:
        lora.merge()
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}
