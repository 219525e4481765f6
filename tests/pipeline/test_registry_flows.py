"""The flows `promote`, `benchmark` and `cleanup` on a registry of MLflow: how they end, and what they show."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import workspace
from flows.benchmark import benchmark
from flows.cleanup import cleanup
from flows.promote import promote
from gapbridge.artifacts import dvc_digest
from gapbridge.model_package import register
from gapbridge.registry import Registry

from ..promotion.conftest import NAME, Register
from ..stages.asked import write_asked
from ..stages.direct import run_directly
from .served import Server

pytestmark = pytest.mark.slow
WEEKS = 30 * 86_400


def set_params(home: Path, section: str, **values: Any) -> None:
    path = home / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section].update(values)
    path.write_text(yaml.safe_dump(params))


def champion(home: Path) -> int | None:
    registry = Registry(home)
    found = registry.aliased(NAME)
    return found.number if found else None


def shown(told: Server, flow: str) -> dict[str, dict[str, Any]]:
    return told.artifacts(told.last_run(flow)["id"])


def test_a_promotion_ends_as_what_was_decided_and_shows_every_gate(home: Path, made: Register, told: Server) -> None:
    ended = promote(str(home), return_state=True)
    assert (ended.type.value, ended.name) == ("COMPLETED", "Unchanged") and "report.register_as" in ended.message
    set_params(home, "report", register_as=NAME)
    made(right=34)
    ended = promote(str(home), dry_run=True, return_state=True)
    assert ended.name == "Promoted" and "would be champion" in ended.message and champion(home) is None
    ended = promote(str(home), return_state=True)
    assert (ended.name, ended.result(), champion(home)) == ("Promoted", {"name": NAME, "candidate": 1}, 1)
    page = shown(told, "promote")["promotion"]
    assert "version 1 is champion: all" in page["description"] and "| lineage | pass |" in page["data"]
    ended = promote(str(home), return_state=True)
    assert (ended.type.value, ended.name) == ("COMPLETED", "Unchanged") and "already" in ended.message
    made(right=12)
    ended = promote(str(home), return_state=True)
    assert (ended.type.value, ended.name, champion(home)) == ("COMPLETED", "Refused", 1)
    page = shown(told, "promote")["promotion"]["data"]
    assert "**fail**" in page and "| pope | 40 | 0.3000 | 0.8500 | -0.5500 |" in page
    ended = promote(str(home), model="another", return_state=True)
    assert ended.is_failed() and ended.message.startswith(f"another: not in the registry, whose models are {NAME}")
    (home / "params.yaml").write_text("seed: [")
    ended = promote(str(home), return_state=True)
    assert ended.is_failed() and "params.yaml: not YAML" in ended.message and "\n" not in ended.message
    assert shown(told, "promote") == {}


def test_a_train_run_ends_with_the_gates_verdict(home: Path, made: Register, told: Server) -> None:
    from flows.train import train

    set_params(home, "report", register_as=NAME)
    made(right=34)
    (home / "dvc.lock").unlink()
    (home / "dvc.yaml").write_text("stages: {one: {cmd: 'echo 1 > one', outs: [one]}}")
    figures = json.loads((home / "metrics/evaluate.json").read_text())
    figures["benchmarks"]["pope"] |= {"blind": 0.5, "majority": 0.5, "n": 40}
    (home / "metrics/evaluate.json").write_text(json.dumps(figures | {"average": 0.85, "average_blind": 0.5}))
    from flows import pipeline

    assert pipeline.dvc(home, "init", "-q", "-f").status == 0
    assert train(str(home), return_state=True).is_completed()
    page = shown(told, "train")["summary"]["data"]
    assert "| one | Completed |" in page and "pope" in page
    assert "version 1 would be champion: all" in page and champion(home) is None


def test_a_benchmark_shows_the_scores_that_the_stage_gives(home: Path, told: Server) -> None:
    write_asked(home)
    (home / "dvc.lock").write_text("stages: {}")
    (home / "card.md").write_text("# card")
    expected = run_directly(home, "evaluate")
    register(home, NAME, home / "artifacts/instruct", home / "card.md")
    ended = benchmark(str(home), model=NAME, return_state=True)
    result = ended.result()
    assert (result["model"], result["version"], result["average"]) == (NAME, 1, expected["average"])
    table = shown(told, "benchmark")["benchmark"]
    assert table["description"] == f"{NAME} version 1"
    assert {row["benchmark"]: row["score"] for row in table["data"]} == {
        name: one["score"] for name, one in expected["benchmarks"].items()
    }
    assert set(table["data"][0]) == {"benchmark", "score", "blind", "majority", "n", "protocol"}
    ended = benchmark(str(home), return_state=True)
    assert (
        ended.is_failed()
        and ended.message.startswith(f"{NAME}@champion: not in the registry")
        and "\n" not in ended.message
    )


def test_a_cleanup_lists_and_only_removes_when_told(
    home: Path, made: Register, told: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAPBRIDGE_STACK", raising=False)
    made()
    registered = dvc_digest(home / "artifacts" / "instruct")
    left = home / ".stack/workspaces/killed-1"
    left.mkdir(parents=True)
    (left / "file").write_text("1")
    record = workspace.keep_record(home, "ended-1", home, {"state": "Completed"})
    (record / "dvc.lock").write_text("stages: {instruct: {outs: [{path: artifacts/instruct, md5: recorded}]}}")
    registry = Registry(home)
    runs = {}
    for name, digest in (("recorded", "recorded"), ("registered", registered), ("other", "other")):
        run = registry.client.create_run(registry.experiment_id, run_name=name, tags={"output.a": digest})
        registry.client.set_terminated(run.info.run_id, end_time=1)
        runs[name] = run.info.run_id
    scratch = Path(os.environ["GAPBRIDGE_SCRATCH"]) / "pretrain-1"
    scratch.mkdir(parents=True)
    os.utime(scratch, (time.time() - WEEKS,) * 2)

    def alive() -> set[str]:
        registry = Registry(home)
        found = {run.info.run_id for run in registry.client.search_runs([registry.experiment_id])}
        return {name for name, run in runs.items() if run in found}

    ended = cleanup(str(home), return_state=True)
    assert ended.result() == {"things": 3, "bytes": 0, "removed": False}
    table = shown(told, "cleanup")["cleanup"]
    assert table["description"] == "3 things would be removed"
    assert {row["kind"] for row in table["data"]} == {"workspace", "scratch", "mlflow run"}
    assert left.exists() and scratch.exists() and alive() == set(runs)
    ended = cleanup(str(home), apply=True, return_state=True)
    assert ended.result() == {"things": 3, "bytes": 0, "removed": True}
    assert not left.exists() and not scratch.exists() and alive() == {"recorded", "registered"}
    assert record.exists() and champion(home) is None
    os.utime(record / "record.json", (time.time() - WEEKS,) * 2)
    ended = cleanup(str(home), apply=True, return_state=True)
    assert ended.result()["things"] == 2 and not record.exists() and alive() == {"registered"}
    assert {row["kind"] for row in shown(told, "cleanup")["cleanup"]["data"]} == {"record", "mlflow run"}
    (home / "dvc.lock").write_text("stages: [")
    ended = cleanup(str(home), return_state=True)
    assert ended.is_failed() and ended.message == "dvc.lock: cannot be read; register the model again"
