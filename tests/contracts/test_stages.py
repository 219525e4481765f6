import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from click.testing import CliRunner

from flows import pipeline
from gapbridge.cli import cli
from gapbridge.params import Params, load_params
from gapbridge.profiles import names, profile_text
from gapbridge.stages import EMBED_SETS, STAGES

ROOT = Path(__file__).resolve().parents[2]
DECLARED: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


INFRASTRUCTURE = {"artifacts", "errors", "hub", "params", "stages", "stages.runner", "tracking", "mirror", "registry",
                  "model_package", "corpus.manifest", "corpus.quarantine", "corpus.records"}  # fmt: skip
"""Code of every stage that decides no byte of what it computes: format versions guard the files that it writes."""


def declaration(stage: str) -> dict[str, Any]:
    return DECLARED[stage].get("do", DECLARED[stage])


def test_one_word_a_stage() -> None:
    assert tuple(DECLARED) == STAGES
    assert DECLARED["embed"]["foreach"] == list(EMBED_SETS)
    assert set(Params.model_fields) == {"seed", *STAGES, "promote"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_its_module_command_section_out_and_metrics(stage: str) -> None:
    declared, item = declaration(stage), "/${item}" if stage == "embed" else ""
    assert callable(import_module(f"gapbridge.stages.{stage}").run)
    assert declared["cmd"] == f"gapbridge {stage}" + (" ${item}" if stage == "embed" else "")
    assert stage in declared["params"] and set(declared["params"]) <= set(Params.model_fields)
    assert all(out.startswith(f"artifacts/{stage}{item}") for out in declared["outs"])
    assert declared["metrics"] == [{f"metrics/{stage}{item}.json": {"cache": False}}]
    assert CliRunner().invoke(cli, [stage, "--help"]).exit_code == 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_depends_on_is_there(stage: str) -> None:
    code = [dep for dep in declaration(stage)["deps"] if dep.startswith("src/")]
    assert f"src/gapbridge/stages/{stage}.py" in code
    assert [dep for dep in code if not (ROOT / dep).exists()] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_the_code_that_it_imports(stage: str) -> None:
    declared = [Path(dep) for dep in declaration(stage)["deps"]]
    imported = grimp.build_graph("gapbridge").find_upstream_modules(f"gapbridge.stages.{stage}")
    files = {Path("src", *module.split(".")) for module in imported
             if module.removeprefix("gapbridge.") not in INFRASTRUCTURE}  # fmt: skip
    undeclared = [
        file for file in sorted(files) if not any(file.is_relative_to(dep.with_suffix("")) for dep in declared)
    ]
    assert undeclared == []


def test_the_flow_has_a_task_for_every_stage_in_an_order_that_dvc_would_choose() -> None:
    waits_for = pipeline.graph(ROOT)
    expected = {stage for stage in STAGES if stage != "embed"} | {f"embed@{item}" for item in EMBED_SETS}
    assert set(waits_for) == expected
    assert waits_for["realign"] == {"embed@texts", "embed@images"}
    order = list(waits_for)
    assert all(order.index(dep) < order.index(stage) for stage, deps in waits_for.items() for dep in deps)
    assert order.index("pretrain") < order.index("geometry"), "the longest chain goes first"


@pytest.mark.parametrize("name", names(ROOT))
def test_every_shipped_profile_loads(name: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(profile_text(ROOT, name))
    load_params(tmp_path / "params.yaml")


def test_the_params_that_are_committed_are_the_defaults(checkout: Path) -> None:
    committed = subprocess.run(
        ["git", "show", "HEAD:params.yaml"], cwd=checkout, capture_output=True, text=True, check=False
    )
    text = committed.stdout if committed.returncode == 0 else (checkout / "params.yaml").read_text()
    assert yaml.safe_load(text) == yaml.safe_load((checkout / "profiles" / "default.yaml").read_text())


@pytest.mark.parametrize("control", ["none", "anchor", "paired", "nostage1"])
def test_a_control_differs_from_the_default_in_its_own_values_alone(control: str) -> None:
    changed = {
        key
        for key, value in yaml.safe_load(profile_text(ROOT, control)).items()
        if value != yaml.safe_load(profile_text(ROOT, "default"))[key]
    }
    expected = {"paired": {"sources", "pretrain"}, "nostage1": {"pretrain"}}
    assert changed == expected.get(control, {"realign"})
