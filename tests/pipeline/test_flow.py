"""The flow on a toy pipeline: what it promises does not depend on what the stages do."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import pipeline

from .served import Server, number_in, runs, wait_for

FLOW = [sys.executable, "-m", "flows.train"]
STAGES = {"sources", "left", "right", "each@x", "each@y", "each@z", "last"}


def run_flow(workspace: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        FLOW, cwd=workspace, env=env, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def locked(workspace: Path) -> set[str]:
    return set(yaml.safe_load((workspace / "dvc.lock").read_text())["stages"])


def ignore(line: str) -> None:
    """Nobody reads it."""


def test_a_stage_runs_is_cached_or_fails_with_its_own_words(toy: Path) -> None:
    for stage in ("sources", "left", "right", "each@x"):
        assert pipeline.run_stage(toy, stage, ignore).status == "ran"
    assert pipeline.run_stage(toy, "left", ignore).status == "cached"
    (toy / "last.sh").write_text("printf 'step 1\\rstep 2\\r'; echo 'error: shard 3: damaged' >&2; exit 1")
    lines: list[str] = []
    outcome = pipeline.run_stage(toy, "last", lines.append)
    assert (outcome.status, outcome.reason) == ("failed", "shard 3: damaged")
    assert lines.index("step 1") + 1 == lines.index("step 2")
    assert "last" not in locked(toy)


def test_a_progress_bar_becomes_lines_and_an_unexpected_error_is_named(toy: Path) -> None:
    for stage in ("sources", "left", "right", "each@x"):
        pipeline.run_stage(toy, stage, ignore)
    (toy / "last.py").write_text("from tqdm import tqdm\nfor _ in tqdm(range(5), desc='rows'): pass\nint('x')")
    (toy / "last.sh").write_text("python last.py")
    lines: list[str] = []
    outcome = pipeline.run_stage(toy, "last", lines.append)
    assert any(line.startswith("rows: 100%") and len(line) <= 90 for line in lines)
    assert outcome.reason == "ValueError: invalid literal for int() with base 10: 'x'"


def test_a_quiet_stage_gives_signs_of_life(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "QUIET_SECONDS", 0.2)
    pipeline.run_stage(toy, "sources", ignore)
    lines: list[str] = []
    pipeline.run_stage(toy, "left", lines.append)
    assert any(line.startswith("left: at work for") for line in lines)


def test_a_stage_that_dies_in_silence_has_no_progress_bar_for_a_reason() -> None:
    lines = ["Running stage 'last':", "rows:  40%|####      | 2/5 [00:01<00:01]"]
    assert pipeline._reason(lines, 247) == "Running stage 'last': (status 247)"


def test_outs_that_the_cache_has_no_room_for_are_a_failure_until_they_are_kept(toy: Path) -> None:
    # DVC 3.67 reports success then. The limit on a file's size stands for a full disk; the stage itself lifts it.
    large = "ulimit -S -f unlimited; mkdir o; head -c 2000000 /dev/zero > o/large"
    (toy / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"large": {"cmd": large, "outs": ["o"]}}}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        outcome = pipeline.run_stage(toy, "large", ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.status == "failed" and outcome.reason is not None
    assert outcome.reason.startswith("DVC's cache did not take its outs (File too large); ")
    assert pipeline.dvc(toy, "commit", "-f", "large").status == 0
    (toy / "o" / "large").unlink()
    assert pipeline.dvc(toy, "checkout").status == 0
    assert (toy / "o" / "large").stat().st_size == 2_000_000


def test_a_file_under_dvc_is_no_stage(toy: Path) -> None:
    (toy / "data").mkdir()
    (toy / "data" / "photo").write_text("1")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=toy, check=True)
    (toy / "dvc.yaml").write_text((toy / "dvc.yaml").read_text().replace("deps: [o/right,", "deps: [data, o/right,"))
    assert set(pipeline.graph(toy)) == STAGES
    assert pipeline.run_stage(toy, "sources", ignore).status == "ran"


def test_the_longest_chain_goes_first(toy: Path) -> None:
    assert list(pipeline.graph(toy))[:3] == ["sources", "left", "each@x"]
    (toy / "dvc.yaml").write_text("stages: [")
    with pytest.raises(pipeline.PipelineError, match=r"dvc\.yaml"):
        pipeline.graph(toy)


def test_the_flow_brings_all_up_to_date_then_finds_nothing_to_do(toy: Path, toy_environment: dict[str, str]) -> None:
    first = run_flow(toy, toy_environment)
    assert first.returncode == 0, first.stdout
    assert locked(toy) == STAGES and (toy / "o" / "last").read_text() == "11"
    second = run_flow(toy, toy_environment)
    assert second.returncode == 0 and second.stdout.count("Cached(") == len(STAGES) - 1
    assert "Traceback" not in first.stdout.split("Finished in state Completed()")[0]


def test_a_failure_ends_the_flow_with_one_line_and_nothing_after_it(toy: Path, toy_environment: dict[str, str]) -> None:
    (toy / "dvc.yaml").write_text((toy / "dvc.yaml").read_text().replace("sleep 1; cp o/sources o/left", "sh last.sh"))
    (toy / "last.sh").write_text("echo 'error: captions.jsonl line 4: \"id\" is missing' >&2; exit 1")
    done = run_flow(toy, toy_environment)
    assert done.returncode == 1 and "Traceback" not in done.stdout and "NoneType" not in done.stdout
    assert 'error: left: captions.jsonl line 4: "id" is missing' in done.stdout.splitlines()
    assert not locked(toy) & {"left", "each@x", "each@y", "each@z", "last"}


@pytest.mark.slow
def test_a_second_flow_waits_for_the_first(toy: Path, toy_environment: dict[str, str]) -> None:
    (toy / "last.sh").write_text("sleep 8; cat o/right o/x > o/last")
    flows = [
        subprocess.Popen(
            FLOW, cwd=toy, env=toy_environment | {"PREFECT_HOME": str(toy / home)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for home in ("one", "two")
    ]  # fmt: skip
    said = [flow.communicate()[0] for flow in flows]
    assert [flow.returncode for flow in flows] == [0, 0], said
    assert sum("waiting for it to end" in text for text in said) == 1
    assert locked(toy) == STAGES


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_flow_stops_the_stage(toy: Path, toy_environment: dict[str, str], number: int) -> None:
    (toy / "last.sh").write_text("sleep 300 & echo $! > child; echo $$ > pid; wait")
    with (toy / "said").open("wb") as said:
        flow = subprocess.Popen(FLOW, cwd=toy, env=toy_environment, stdout=said, stderr=said, start_new_session=True)
    stage, child = number_in(toy / "pid", 90), number_in(toy / "child")
    # Ctrl-C reaches all that a terminal started.
    (os.killpg if number == signal.SIGINT else os.kill)(flow.pid, number)
    wait_for(lambda: not runs(stage) and not runs(child), 15)
    assert flow.wait(30) == 130
    told = (toy / "said").read_text()
    assert "stopped; the next run goes on from here" in told and "Traceback" not in told
    assert "Failed('was stopped; the next run goes on from here')" in told
    (toy / "last.sh").write_text("cat o/right o/x > o/last")
    assert run_flow(toy, toy_environment).returncode == 0


@pytest.mark.slow
def test_a_running_server_shows_the_run(toy: Path, toy_environment: dict[str, str], server: Server) -> None:
    env = toy_environment | {"PREFECT_API_URL": server.address}
    assert [run_flow(toy, env).returncode for _ in range(2)] == [0, 0]
    run = server.last_run("train")["id"]
    tasks = server.tasks(run, len(STAGES))
    assert set(tasks) == STAGES
    assert sum(task["state"]["name"] == "Cached" for task in tasks.values()) == len(STAGES) - 1
    logs = server.post("logs/filter", {"limit": 200})
    assert any(log["message"].startswith("Running stage 'last'") for log in logs)
    assert "| last | Cached |" in server.artifacts(run)["summary"]["data"]
