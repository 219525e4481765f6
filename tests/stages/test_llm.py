"""The stage llm: a model trained here is a whole folder; a pinned one is named, once it is known to be of use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gapbridge.corpus.manifest import write_manifest
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.llm import load_llm
from gapbridge.stages import llm

from . import bridge

SetParams = Callable[..., None]
TRAINING = {"steps": 4, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.0, "warmup_fraction": 0.1}
SIZE = {"hidden_size": 32, "intermediate_size": 48, "layers": ["conv", "full_attention"], "attention_heads": 2,
        "vocabulary_size": 330, "training": TRAINING}  # fmt: skip


def fill(workspace: Path, answer: str = "red") -> None:
    questions = [(bridge.QUESTIONS[0][0], answer), *bridge.QUESTIONS[1:]]
    turns = [{"question": question, "answer": answer} for question, answer in questions]
    record = {"source": "test", "text": None, "turns": turns}
    rows = [{**record, "id": f"r{n}", "group_id": f"g{n}", "context": text} for n, text in enumerate(bridge.TEXTS)]
    write_manifest(workspace / "artifacts/ingest/llm", "language", rows, [])


def test_it_is_trained_from_the_records_of_its_set(workspace: Path, set_params: SetParams) -> None:
    fill(workspace)
    set_params(llm=SIZE)
    stage = bridge.stage(workspace, "llm")
    metrics = llm.run(stage)
    model, tokenizer = load_llm(stage.out)
    assert (metrics["steps"], metrics["rows"], metrics["heldout_rows"]) == (4, 57, 3)
    assert metrics["vocabulary"] == len(tokenizer) == model.config.vocab_size
    assert (stage.out / "losses.parquet").exists()


def test_a_pinned_model_is_named_and_needs_a_chat_template(workspace: Path, set_params: SetParams) -> None:
    bridge.fill(workspace)
    pinned = workspace / "downloads" / "llm"
    shutil.copytree(workspace / "artifacts" / "llm", pinned)
    set_params(llm={"pretrained": str(pinned)})
    stage = bridge.stage(workspace, "llm")
    shutil.rmtree(stage.out)
    stage.out.mkdir()
    assert llm.run(stage)["pretrained"] == str(pinned)
    assert [file.name for file in stage.out.iterdir()] == ["llm.json"]
    weights = (pinned / "model.safetensors").read_bytes()
    (pinned / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ArtifactError, match="does not open as a causal language model"):
        llm.run(stage)
    (pinned / "model.safetensors").write_bytes(weights)
    (pinned / "chat_template.jinja").unlink()
    config = json.loads((pinned / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (pinned / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="chat template"):
        llm.run(stage)


def test_a_marker_in_a_text_is_told_by_its_record(workspace: Path, set_params: SetParams) -> None:
    fill(workspace, answer="red <eos>")
    set_params(llm=SIZE)
    with pytest.raises(InputError, match=r"llm: record 'r\d+': its text holds the marker '<eos>'"):
        llm.run(bridge.stage(workspace, "llm"))


def test_no_rows_are_an_error_that_names_the_two_ways_out(workspace: Path) -> None:
    write_manifest(workspace / "artifacts/ingest/llm", "language", [], [])
    with pytest.raises(InputError, match=r"llm\.pretrained"):
        llm.run(bridge.stage(workspace, "llm"))
