"""What the runner promises of every stage: all of it is written, or nothing."""

from pathlib import Path
from typing import Any

import pytest

from gapbridge.errors import ArtifactError, InputError
from gapbridge.stages import instruct, sources
from gapbridge.stages.runner import StageRun, run_stage


def test_figures_that_are_no_numbers_leave_what_was_there(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(stage: StageRun) -> dict[str, Any]:
        (stage.out / "new").touch()
        return {"texts": {"share": float("nan")}}

    monkeypatch.setattr(sources, "run", run)
    monkeypatch.setattr("gapbridge.tracking.start_mirror", lambda folder: None)
    (workspace / "artifacts/sources").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"sources: texts\.share is not a finite number"):
        run_stage("sources", workspace=workspace)
    assert list((workspace / "artifacts").rglob("*")) == [workspace / "artifacts/sources"]
    assert not (workspace / "metrics").exists()


@pytest.mark.parametrize("variable", ["GAPBRIDGE_CACHE", "GAPBRIDGE_SCRATCH"])
def test_a_file_in_place_of_a_cache_is_told(workspace: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(workspace / "params.yaml"))
    with pytest.raises(InputError, match=rf"{variable}: .*params\.yaml cannot be a folder"):
        run_stage("sources", workspace=workspace)
    assert not (workspace / "artifacts").exists()


def test_a_stage_of_one_process_refuses_several(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="sources is one process; torchrun may start llm, embed, pretrain, instruct"):
        run_stage("sources", workspace=workspace)


@pytest.mark.parametrize(("rank", "writes"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_alone_is_told_to_write(
    workspace: Path, rank: str, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[StageRun] = []
    monkeypatch.setattr(instruct, "run", lambda stage: told.append(stage) or {})
    monkeypatch.setattr("gapbridge.tracking.start_mirror", lambda folder: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    run_stage("instruct", workspace=workspace)
    assert [stage.writes for stage in told] == [writes]
    assert (workspace / "artifacts/instruct").exists() == writes
