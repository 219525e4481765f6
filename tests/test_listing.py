"""`gapbridge list` names what there is, and nothing that is not."""

import json
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from gapbridge.cli import cli
from gapbridge.corpus.records import SETS
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.listing import LLM_FAMILIES, listing
from gapbridge.params import BENCHMARK_FORMATS, Format, RealignParams

from .model.conftest import CONFIGS


def test_it_says_what_params_may_say(checkout: Path) -> None:
    found = listing(checkout)
    assert set(found["readers"]) | set(BENCHMARK_FORMATS) | {"world"} == set(get_args(Format))
    assert set(found["aligners"]) == set(get_args(RealignParams.model_fields["method"].annotation))
    assert all(set(sets) <= set(SETS) and sets for sets in found["readers"].values())
    assert found["readers"]["folder"] == ["images"]
    assert found["readers"]["embeddings"] == ["texts", "images", "probe"]
    assert set(found["benchmarks"]) == set(BENCHMARKS)
    assert all(entry["protocols"] for entry in found["benchmarks"].values())
    assert {"default", "paper-llama3-8b", "cpu-small"} <= set(found["profiles"])


def test_the_families_are_those_that_the_tests_run() -> None:
    assert sorted(LLM_FAMILIES) == sorted(config.model_type for config in CONFIGS.values())


def test_the_command_prints_it_for_people_and_programs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    said = CliRunner().invoke(cli, ["list"]).stdout
    for name in ("webdataset", "texts, images", "llm2clip", "qwen3", "realign", "yes-no/1", "single-24gb-gpu"):
        assert name in said
    assert json.loads(CliRunner().invoke(cli, ["list", "--json"]).stdout) == listing(checkout)
