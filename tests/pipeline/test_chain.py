"""What the flow `train` shows and does of a chain of stages: artefacts, states, a second try, a time limit."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from flows import pipeline
from flows.train import train

from .served import Server, number_in, runs

TRY = "echo try >> tries"


def run(workspace: Path, **parameters: Any) -> Any:
    """The final state of one run."""
    return train(str(workspace), return_state=True, **parameters)


def tries(workspace: Path) -> int:
    """How often `last` was started."""
    return len((workspace / "tries").read_text().split())


def ignore(line: str) -> None:
    """Nobody reads it."""


def test_a_run_shows_progress_a_table_and_a_last_word(pair: Path, told: Server) -> None:
    assert run(pair).result() == {"first": "Completed", "last": "Completed"}
    found = told.artifacts(told.last_run("train")["id"])
    assert {key: one["type"] for key, one in found.items()} == {
        "progress": "progress", "stages": "table", "summary": "markdown",
    }  # fmt: skip
    assert float(found["progress"]["data"]) == 100
    rows = [{"stage": stage, "state": "Completed", "message": "", "mlflow": ""} for stage in ("first", "last")]
    assert found["stages"]["data"] == rows
    assert "| last | Completed |" in found["summary"]["data"]


def test_what_has_not_changed_is_cached_and_runs_of_mlflow_are_linked(pair: Path, told: Server) -> None:
    for stage in ("first", "last"):
        assert pipeline.run_stage(pair, stage, ignore).status == "ran"
    (pair / "last.sh").write_text("cat o/first o/first > o/last")
    record = {"run_id": "0123456789abcdef", "experiment_id": "1", "uri": "http://127.0.0.1:5000"}
    for stage, uri in (("first", record["uri"]), ("last", "sqlite:////a/mlflow.db")):
        (pair / "runs" / stage / "1").mkdir(parents=True)
        (pair / "runs" / stage / "1" / "mlflow.json").write_text(json.dumps(record | {"uri": uri}))
    assert run(pair).result() == {"first": "Cached", "last": "Completed"}
    number = told.last_run("train")["id"]
    states = {name: (task["state"]["type"], task["state"]["name"]) for name, task in told.tasks(number, 2).items()}
    assert states == {"first": ("COMPLETED", "Cached"), "last": ("COMPLETED", "Completed")}
    table = {row["stage"]: (row["state"], row["mlflow"]) for row in told.artifacts(number)["stages"]["data"]}
    address = "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef"
    assert table == {"first": ("Cached", f"[01234567]({address})"), "last": ("Completed", record["run_id"])}


def test_a_stage_that_was_killed_is_tried_once_more(pair: Path, told: Server) -> None:
    (pair / "last.sh").write_text(f"{TRY}; [ -e dead ] || {{ touch dead; kill -9 $$; }}; cp o/first o/last")
    assert run(pair).is_completed()
    assert tries(pair) == 2 and (pair / "o/last").read_text() == "1"
    task = told.tasks(told.last_run("train")["id"], 2)["last"]
    assert (task["run_count"], task["state"]["name"]) == (2, "Completed")


@pytest.mark.slow
def test_killed_twice_is_a_failure(pair: Path, told: Server) -> None:
    (pair / "last.sh").write_text(f"{TRY}; kill -9 $$")
    ended = run(pair)
    assert ended.is_failed() and tries(pair) == 2
    assert "exited with -9" in ended.message or "exited with 137" in ended.message  # bash or dash as $SHELL


def test_any_other_failure_has_one_try_and_ends_the_run_with_its_own_line(pair: Path, told: Server) -> None:
    (pair / "last.sh").write_text(f"{TRY}; echo 'error: params.yaml: what: is wrong' >&2; exit 1")
    ended = run(pair)
    assert ended.is_failed() and ended.message == "last: params.yaml: what: is wrong" and tries(pair) == 1
    found = told.artifacts(told.last_run("train")["id"])
    row = next(row for row in found["stages"]["data"] if row["stage"] == "last")
    assert (row["state"], row["message"]) == ("Failed", "params.yaml: what: is wrong")
    assert "| last | Failed | params.yaml: what: is wrong |" in found["summary"]["data"]


def test_the_time_limit_stops_a_stage_with_its_children(
    pair: Path, told: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "QUIET_SECONDS", 0.5)
    (pair / "last.sh").write_text("sleep 300 & echo $! > child; echo $$ > pid; wait")
    assert pipeline.run_stage(pair, "first", ignore).status == "ran"
    ended = run(pair, stage_timeout_minutes=0.2)
    assert ended.is_failed() and ended.message == "last: took longer than 12 s and was stopped; it goes on next time"
    assert not runs(number_in(pair / "pid")) and not runs(number_in(pair / "child"))
    (pair / "last.sh").write_text("cp o/first o/last")
    assert run(pair, stage_timeout_minutes=5).is_completed()


@pytest.mark.parametrize(
    "parameters", [{"stage_timeout_minutes": 0}, {"stage_timeout_minutes": "long"}, {"own_workspace": "perhaps"}]
)
def test_parameters_are_checked_before_anything_starts(parameters: dict[str, Any], pair: Path, told: Server) -> None:
    with pytest.raises(ParameterTypeError, match=next(iter(parameters))):
        train(str(pair), **parameters)
    assert not (pair / "dvc.lock").exists() and not (pair / "o").exists()


def test_a_pipeline_that_cannot_be_read_is_one_line(pair: Path, told: Server) -> None:
    (pair / "dvc.yaml").write_text("stages: [")
    ended = run(pair)
    assert ended.is_failed() and "dvc.yaml" in ended.message and "\n" not in ended.message
