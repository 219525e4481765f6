"""What stage 2 tunes: all of the language model, additions to it, or the adapter alone; always one plain directory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from gapbridge.errors import InputError
from gapbridge.stages import instruct, pretrain
from gapbridge.train.tuning import LoraTuning

from . import bridge

SetParams = Callable[..., None]
LORA = {"rank": 4, "alpha": 16.0, "dropout": 0.1, "targets": "all-linear"}
_ANSWER_WITHOUT_PEFT = """
import json, sys
sys.modules["peft"] = None
import gapbridge, torch
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
ids, vector = json.loads(sys.argv[2])
answer = model.generate(input_ids=torch.tensor([ids]), visual_embeds=torch.tensor([vector]), max_new_tokens=8)
print(json.dumps(answer[0].tolist()))
"""


@pytest.fixture
def ready(workspace: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch) -> Path:
    bridge.fill(workspace)
    tuned = {**bridge.INSTRUCT, "llm_learning_rate": 0.01, "lora": LORA}
    set_params(pretrain={**bridge.PRETRAIN, "enabled": False}, instruct=tuned)
    monkeypatch.setattr(instruct, "load_image_half", bridge.image_half)
    pretrain.run(bridge.stage(workspace, "pretrain"))
    return workspace


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _changed(ready: Path, out: Path) -> tuple[set[str], set[str]]:
    """Names of the language model's weights, and of the adapter's, that training changed."""
    weights = load_file(out / "model.safetensors")
    llm = load_file(ready / "artifacts/llm/model.safetensors")
    adapter = load_file(ready / "artifacts/pretrain/adapter.safetensors")
    own = {name: weights[name if name.startswith("lm_head") else f"model.language_{name}"] for name in llm}
    return (
        {name for name in llm if not torch.equal(llm[name], own[name])},
        {name for name in adapter if not torch.equal(adapter[name], weights[f"model.multi_modal_projector.{name}"])},
    )


@pytest.mark.parametrize(("tune", "recomputed"), [("full", False), ("lora", True), ("frozen", True)])
def test_a_killed_run_ends_with_the_same_bytes(ready: Path, set_params: SetParams, tune: str, recomputed: bool) -> None:
    """Also with dropout in the additions and layers computed again."""
    set_params(instruct={"tune": tune, "gradient_checkpointing": recomputed})
    whole = bridge.stage(ready, "instruct")
    metrics = instruct.run(whole)
    expected = _bytes(whole.out)
    for file in (*whole.out.rglob("*.*"), *whole.scratch.iterdir()):
        file.unlink()
    (whole.out / "training").rmdir()
    with pytest.raises(KeyboardInterrupt):
        instruct.run(bridge.stage(ready, "instruct", stop_after=5))
    assert list(whole.scratch.iterdir())
    again = bridge.stage(ready, "instruct")
    assert instruct.run(again) == metrics
    assert _bytes(again.out) == expected


def test_additions_are_merged_into_one_directory_that_needs_no_peft(
    ready: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, vector = [5, 6, 7], [0.25] * bridge.WIDTH
    answers: list[list[int]] = []
    tuned: list[Any] = []
    prepare, merge = LoraTuning.__init__, LoraTuning.merge

    def remember(self: LoraTuning, model: Any, *arguments: Any) -> None:
        prepare(self, model, *arguments)
        tuned.append(model)

    def answer_then_merge(self: LoraTuning) -> None:
        inputs = {"input_ids": torch.tensor([prompt]), "visual_embeds": torch.tensor([vector])}
        answers.append(tuned[0].generate(**inputs, max_new_tokens=8, eos_token_id=None)[0].tolist())
        merge(self)

    monkeypatch.setattr(LoraTuning, "__init__", remember)
    monkeypatch.setattr(LoraTuning, "merge", answer_then_merge)
    set_params(instruct={"tune": "lora"})
    stage = bridge.stage(ready, "instruct")
    prompt = [*ids, *[_placeholder(ready)] * 3, *ids]
    metrics = instruct.run(stage)
    assert metrics["tune"] == "lora" and metrics["trained_parameters"] < metrics["parameters"] / 2
    losses = polars.read_parquet(stage.out / "training" / "losses.parquet")["loss"]
    assert losses.tail(3).mean() < losses.head(3).mean() - 0.5
    llm, adapter = _changed(ready, stage.out)
    assert {"hidden.weight", "output.weight", "hidden.bias", "output.bias"} == adapter
    assert llm and all(name.endswith("proj.weight") or ".w" in name for name in llm)
    assert not any("lora" in name or "base_layer" in name for name in load_file(stage.out / "model.safetensors"))
    assert not list(stage.out.rglob("adapter_*"))
    command = [sys.executable, "-c", _ANSWER_WITHOUT_PEFT, str(stage.out), json.dumps([prompt, vector])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    opened = json.loads(done.stdout.splitlines()[-1])
    assert opened == answers[0][: len(opened)] and len(opened) > len(prompt)


def test_the_adapter_alone_learns_where_the_language_model_is_frozen(ready: Path, set_params: SetParams) -> None:
    set_params(instruct={"tune": "frozen"})
    stage = bridge.stage(ready, "instruct")
    metrics = instruct.run(stage)
    llm, adapter = _changed(ready, stage.out)
    assert not llm and {"hidden.weight", "output.weight"} <= adapter
    assert metrics["trained_parameters"] == sum(
        parameter.numel()
        for name, parameter in AutoModelForImageTextToText.from_pretrained(stage.out).named_parameters()
        if "multi_modal_projector" in name
    )


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_bf16_and_recomputed_layers_end_in_an_fp32_directory(ready: Path, set_params: SetParams, tune: str) -> None:
    set_params(instruct={"tune": tune, "precision": "bf16", "gradient_checkpointing": True})
    stage = bridge.stage(ready, "instruct")
    instruct.run(stage)
    losses = polars.read_parquet(stage.out / "training" / "losses.parquet")["loss"]
    assert losses.tail(3).mean() < losses.head(3).mean()
    tensors = load_file(stage.out / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}
    tower = bridge.image_half(ready).visual.state_dict()
    assert all(torch.equal(tensors[f"model.vision_tower.visual.{name}"], tower[name]) for name in tower)


def test_layers_that_are_not_there_are_an_error(ready: Path, set_params: SetParams) -> None:
    set_params(instruct={"tune": "lora", "lora": {**LORA, "targets": ["q_proj", "query_key"]}})
    with pytest.raises(InputError, match=r"instruct\.lora\.targets: query_key: no linear layer .* q_proj"):
        instruct.run(bridge.stage(ready, "instruct"))


def _placeholder(ready: Path) -> int:
    tokenizer = json.loads((ready / "artifacts/llm/tokenizer.json").read_text())
    return next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<image>")
