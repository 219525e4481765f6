"""Stage 1: the adapter learns, the language model keeps its bytes, the controls say what they are."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
import torch
from safetensors.torch import load_file

from gapbridge.artifacts import read_json, write_json
from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.encoders import FORMAT_VERSION
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model import vlm
from gapbridge.stages import pretrain

from . import bridge

SetParams = Callable[..., None]


@pytest.fixture
def ready(workspace: Path, set_params: SetParams) -> Path:
    bridge.fill(workspace)
    set_params(pretrain=bridge.PRETRAIN)
    return workspace


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_it_learns_the_adapter_and_nothing_else(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[Any] = []
    build = vlm.GapbridgeForConditionalGeneration.__init__

    def remember(self: Any, config: Any) -> None:
        build(self, config)
        models.append(self)

    monkeypatch.setattr(vlm.GapbridgeForConditionalGeneration, "__init__", remember)
    stage = bridge.stage(ready, "pretrain")
    metrics = pretrain.run(stage)
    losses = polars.read_parquet(stage.out / "losses.parquet")
    assert losses["loss"].tail(3).mean() < losses["loss"].head(3).mean()
    assert losses["heldout"].drop_nulls().len() == 2
    assert metrics["trained"]
    assert metrics["loss_heldout"] == losses["heldout"][-1]
    assert (metrics["source"], metrics["aligner"], metrics["rows"]) == ("aligned_text", "realign", 54)
    before = load_file(ready / "artifacts/llm/model.safetensors")
    trained = models[-1].state_dict()
    for name, tensor in before.items():
        key = name if name.startswith("lm_head") else f"model.language_{name}"
        assert tensor.numpy().tobytes() == trained[key].numpy().tobytes(), name
    assert set(_bytes(stage.out)) == {"adapter.json", "adapter.safetensors", "losses.parquet"}


def test_noise_comes_from_params_and_changes_what_is_learned(ready: Path, set_params: Callable[..., None]) -> None:
    learned = []
    for noise in (0.0, 0.5):
        set_params(pretrain={"noise": noise})
        stage = bridge.stage(ready, "pretrain")
        pretrain.run(stage)
        learned.append(_bytes(stage.out)["adapter.safetensors"])
        shutil.rmtree(stage.scratch)
    assert learned[0] != learned[1]


def test_in_bf16_the_frozen_weights_are_bf16_and_the_adapter_is_not(
    ready: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, seen = pretrain.train, {}

    def watched(model: Any, *arguments: Any) -> Any:
        seen.update({name: parameter.dtype for name, parameter in model.named_parameters()})
        return train(model, *arguments)

    monkeypatch.setattr(pretrain, "train", watched)
    set_params(pretrain={"precision": "bf16"})
    stage = bridge.stage(ready, "pretrain")
    metrics = pretrain.run(stage)
    wide = {name for name, dtype in seen.items() if dtype == torch.float32}
    assert wide == {name for name in seen if "multi_modal_projector" in name} and len(wide) < len(seen)
    losses = polars.read_parquet(stage.out / "losses.parquet")
    heldout = losses["heldout"].drop_nulls()
    assert heldout.is_finite().all() and heldout.len() == 2 and not metrics["packed"]
    assert losses["loss"].tail(3).mean() < losses["loss"].head(3).mean()
    assert {tensor.dtype for tensor in load_file(stage.out / "adapter.safetensors").values()} == {torch.float32}


def test_recomputed_layers_lose_nothing(ready: Path, set_params: SetParams) -> None:
    learned = []
    for checkpointed in (False, True):
        set_params(pretrain={"gradient_checkpointing": checkpointed})
        stage = bridge.stage(ready, "pretrain")
        pretrain.run(stage)
        learned.append(_bytes(stage.out))
        shutil.rmtree(stage.scratch)
    assert learned[0] == learned[1]


def test_a_killed_run_ends_with_the_same_bytes(ready: Path) -> None:
    whole = bridge.stage(ready, "pretrain")
    metrics = pretrain.run(whole)
    expected = _bytes(whole.out)
    for file in (*whole.out.iterdir(), *whole.scratch.iterdir()):
        file.unlink()
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(bridge.stage(ready, "pretrain", stop_after=9))
    assert list(whole.scratch.iterdir())
    again = bridge.stage(ready, "pretrain")
    assert pretrain.run(again) == metrics
    assert _bytes(again.out) == expected


def test_disabled_it_writes_an_untrained_adapter_and_says_so(ready: Path, set_params: SetParams) -> None:
    set_params(pretrain={"enabled": False})
    stage = bridge.stage(ready, "pretrain")
    metrics = pretrain.run(stage)
    assert metrics == {"enabled": False, "trained": False, "source": None, "aligner": None, "visual_tokens": 3}
    assert set(_bytes(stage.out)) == {"adapter.json", "adapter.safetensors"}
    assert read_json(stage.out / "adapter.json")["source"] is None


def test_an_alignment_of_another_encoder_is_refused(ready: Path) -> None:
    about = {"format_version": FORMAT_VERSION, "kind": "open_clip", "fingerprint": "newer"}
    write_json(ready / "artifacts/encoder/encoder.json", about)
    with pytest.raises(ArtifactError, match="of another encoder than artifacts/encoder; run embed and realign again"):
        pretrain.run(bridge.stage(ready, "pretrain"))


def test_a_marker_in_a_text_or_the_instruction_is_told_by_its_name(ready: Path, set_params: SetParams) -> None:
    records = read_manifest(ready / "artifacts/ingest/texts").to_dicts()
    records[5]["text"] = "a <image> of a ring"
    bridge.write(ready, "texts", records, "texts", -0.3)
    with pytest.raises(InputError, match="texts: record 'r005': its text holds the marker '<image>'; remove it"):
        pretrain.run(bridge.stage(ready, "pretrain"))
    set_params(pretrain={"instruction": "describe <image>"})
    with pytest.raises(InputError, match=r"pretrain\.instruction: its text holds the marker '<image>'"):
        pretrain.run(bridge.stage(ready, "pretrain"))


def test_paired_pictures_need_captions(ready: Path, set_params: SetParams) -> None:
    set_params(pretrain={"source": "paired_image"})
    with pytest.raises(InputError, match=r"set sources\.images\.captions to true"):
        pretrain.run(bridge.stage(ready, "pretrain"))


def test_paired_pictures_teach_their_captions(workspace: Path, set_params: SetParams) -> None:
    bridge.fill(workspace, captions=True)
    set_params(pretrain={**bridge.PRETRAIN, "source": "paired_image"})
    metrics = pretrain.run(bridge.stage(workspace, "pretrain"))
    assert (metrics["source"], metrics["aligner"], metrics["rows"] + metrics["heldout_rows"]) == (
        "paired_image",
        None,
        40,
    )
