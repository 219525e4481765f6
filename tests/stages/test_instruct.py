"""Stage 2: adapter and language model learn; the result is the final model's directory."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.encoders import open_pretrained, pin_encoder
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.llm import load_llm
from gapbridge.stages import instruct, pretrain
from gapbridge.train.prompts import Prompter

from ..checkpoints import save_encoder
from . import bridge

SetParams = Callable[..., None]


@pytest.fixture
def ready(workspace: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch) -> Path:
    bridge.fill(workspace)
    set_params(pretrain={**bridge.PRETRAIN, "enabled": False}, instruct=bridge.INSTRUCT)
    monkeypatch.setattr(instruct, "load_image_half", bridge.image_half)
    pretrain.run(bridge.stage(workspace, "pretrain"))
    return workspace


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_it_learns_and_writes_the_final_model(ready: Path) -> None:
    stage = bridge.stage(ready, "instruct")
    metrics = instruct.run(stage)
    losses = polars.read_parquet(stage.out / "training" / "losses.parquet")
    assert losses["loss"][-1] < losses["loss"][0] - 1
    assert (metrics["source"], metrics["rows"], metrics["heldout_rows"], metrics["packed"]) == (
        "real_image",
        36,
        4,
        False,
    )
    before = load_file(ready / "artifacts/llm/model.safetensors")
    adapter = load_file(ready / "artifacts/pretrain/adapter.safetensors")
    model = AutoModelForImageTextToText.from_pretrained(stage.out)
    assert model.config.vision_config.encoder_fingerprint == "f"
    weights = model.state_dict()
    assert not torch.equal(weights["lm_head.weight"], before["lm_head.weight"])
    projector = "model.multi_modal_projector."
    assert not torch.equal(weights[f"{projector}hidden.weight"], adapter["hidden.weight"])
    assert torch.equal(weights[f"{projector}image_mean"], adapter["image_mean"])
    tower = bridge.image_half(ready).visual.state_dict()
    assert all(torch.equal(weights[f"model.vision_tower.visual.{name}"], tower[name]) for name in tower)


def test_the_model_answers_about_a_picture(ready: Path) -> None:
    stage = bridge.stage(ready, "instruct")
    instruct.run(stage)
    model, processor = (auto.from_pretrained(stage.out) for auto in (AutoModelForImageTextToText, AutoProcessor))
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color is it"}]}
    text = processor.apply_chat_template([question], add_generation_prompt=True)
    inputs = processor(images=Image.new("RGB", (40, 30), "red"), text=text, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == Prompter(processor.tokenizer).ask("what color is it", visual_tokens=3)
    answer = model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(answer, skip_special_tokens=True) == "red"


def test_a_language_model_that_never_heard_of_pictures_will_do(ready: Path) -> None:
    folder = ready / "artifacts/llm"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<image>"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({key: value for key, value in config.items() if "<image>" not in str(value)})
    )
    with pytest.raises(InputError, match="does not know <image>"):
        Prompter(load_llm(folder)[1]).ask("what color is it", visual_tokens=1)
    pretrain.run(bridge.stage(ready, "pretrain"))
    assert instruct.run(bridge.stage(ready, "instruct"))["rows"] == 36


def test_without_any_picture_it_learns_from_contexts(ready: Path, set_params: SetParams) -> None:
    set_params(instruct={"source": "aligned_text"})
    assert instruct.run(bridge.stage(ready, "instruct"))["source"] == "aligned_text"


def test_without_contexts_that_is_an_error(
    workspace: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge.fill(workspace, contexts=False)
    monkeypatch.setattr(instruct, "load_image_half", bridge.image_half)
    set_params(pretrain={**bridge.PRETRAIN, "enabled": False}, instruct={**bridge.INSTRUCT, "source": "aligned_text"})
    pretrain.run(bridge.stage(workspace, "pretrain"))
    with pytest.raises(InputError, match="some rows have no context"):
        instruct.run(bridge.stage(workspace, "instruct"))


def test_a_marker_in_a_question_is_told_by_its_record(ready: Path) -> None:
    records = read_manifest(ready / "artifacts/ingest/instruct").to_dicts()
    records[7]["turns"][1]["question"] = "where is <image>"
    bridge.write(ready, "instruct", records)
    with pytest.raises(InputError, match="instruct: record 'r007': its text holds the marker '<image>'"):
        instruct.run(bridge.stage(ready, "instruct"))


def test_another_encoder_is_refused(ready: Path) -> None:
    path = ready / "artifacts/encoder/encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "another"}))
    with pytest.raises(ArtifactError, match="not the encoder that the adapter was trained for"):
        instruct.run(bridge.stage(ready, "instruct"))


def test_the_encoders_text_half_is_neither_read_nor_seen_in_the_model(
    workspace: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge.fill(workspace)
    set_params(pretrain={**bridge.PRETRAIN, "enabled": False}, instruct=bridge.INSTRUCT)
    monkeypatch.chdir(workspace)
    save_encoder(workspace, "transformers:models/clip", bridge.TEXTS * 20)
    folder = workspace / "artifacts/encoder"
    pin_encoder(folder, "transformers:models/clip", None, "{}")
    about = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**about, "fingerprint": "f"}))  # whose vectors are there
    pretrain.run(bridge.stage(workspace, "pretrain"))

    def written() -> dict[str, bytes]:
        stage = bridge.stage(workspace, "instruct")
        instruct.run(stage)
        found = _bytes(stage.out)
        shutil.rmtree(stage.out)
        shutil.rmtree(stage.scratch)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(instruct, "load_image_half", lambda _: open_pretrained("transformers:models/clip").image)
        expected = written()
    weights = load_file("models/clip/model.safetensors")
    text = {name for name in weights if name.startswith("text_")}
    save_file({name: w * torch.nan if name in text else w for name, w in weights.items()},
              "models/clip/model.safetensors", {"format": "pt"})  # fmt: skip
    assert text and written() == expected


def test_of_several_processes_the_first_alone_writes_the_model(ready: Path) -> None:
    stage = replace(bridge.stage(ready, "instruct"), writes=False)
    assert instruct.run(stage)["rows"] == 36
    assert not list(stage.out.iterdir())
