"""Each profile through every stage: its own formats and names, tiny checkpoints, few steps; nothing else is changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gapbridge import tracking
from gapbridge.cli import cli
from gapbridge.evaluate.predict import ask
from gapbridge.params import check_params
from gapbridge.profiles import overlay, profile_text
from gapbridge.stages import EMBED_SETS, STAGES
from gapbridge.stages.runner import run_stage

from ..inputs import picture, write_inputs

ROOT = Path(__file__).resolve().parents[2]
FEW = {"steps": 3, "batch_size": 6}
SMALL: dict[str, Any] = {
    "ingest": {"min_rows": 8},
    "embed": {"threads": 1, "batch_size": 32},
    "geometry": {"rows": 40},
    "pretrain": {"threads": 1, "precision": "fp32", "adapter": {"hidden_size": 24}, "training": FEW},
    "instruct": {"threads": 1, "precision": "fp32", "training": FEW},
    "evaluate": {"threads": 1, "batch_size": 16, "max_new_tokens": 4},
    "report": {"gallery": 3},
}
"""Sizes and steps, and nothing that decides which code runs but the GPU's number format."""


def shrunk(name: str) -> dict[str, Any]:
    """The profile's params with sizes and steps of a test."""
    return overlay(yaml.safe_load(profile_text(ROOT, name)), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-small", "single-24gb-gpu", "paper-llama3-8b", "paper-llama3-70b"])
def test_a_profile_runs_through_every_stage(name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "start_mirror", lambda run_folder: None)
    monkeypatch.chdir(workspace)
    values = shrunk(name)
    (workspace / "params.yaml").write_text(yaml.safe_dump(values))
    params = check_params(values, workspace / "params.yaml")
    write_inputs(workspace, params)
    planned = CliRunner().invoke(cli, ["plan", "--json"])
    assert planned.stdout, planned.exception
    plan = json.loads(planned.stdout)
    for stage in STAGES:
        for item in EMBED_SETS if stage == "embed" else (None,):
            run_stage(stage, item, workspace)
    figures = {
        stage: json.loads((workspace / f"metrics/{stage}.json").read_text()) for stage in STAGES if stage != "embed"
    }
    assert figures["encoder"]["fingerprint"] and figures["llm"]["pretrained"] == params.llm.pretrained
    assert all(figures["ingest"]["sets"][set_name]["rows"] for set_name in ("texts", "images", "instruct", "benchmark"))
    formats = {source.format for source in params.sources.benchmark} - {None}
    assert set(figures["evaluate"]["benchmarks"]) >= {one.removesuffix("_official") for one in formats} - {"pope"}
    assert plan["missing"] == []
    for stage in ("pretrain", "instruct"):
        assert plan["training"][stage]["steps"] == figures[stage]["steps"]
    card = (workspace / "artifacts/report/model_card.md").read_text()
    assert f"| language model {params.llm.pretrained} | other (tiny) |" in card
    assert CliRunner().invoke(cli, ["export", "exported"]).exit_code == 0
    picture("asked", 0).save(workspace / "asked.png")
    assert ask(Path("exported"), Path("asked.png"), "what is it") == ask(
        Path("artifacts/instruct"), Path("asked.png"), "what is it"
    )
