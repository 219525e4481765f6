"""The whole pipeline at smoke size, in a copy of the tree with caches and stores of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapbridge.mirror import open_store
from gapbridge.stages import EMBED_SETS, STAGES

from .conftest import call, copy_of_tracked_files, environment

LABELS = {stage for stage in STAGES if stage != "embed"} | {f"embed@{item}" for item in EMBED_SETS}
BENCHMARKS = {"pope", "color", "shape", "position", "count", "caption_f1"}


@dataclass(frozen=True)
class Copy:
    """A workspace that ran once from nothing."""

    path: Path
    env: Mapping[str, str]
    said: str

    def repro(self, *arguments: str) -> str:
        return call(self.path, self.env, "dvc", "repro", *arguments)

    def outs(self) -> dict[str, str]:
        """The digest of every out, as dvc.lock has it."""
        stages = yaml.safe_load((self.path / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def metrics(self, name: str) -> Any:
        return json.loads((self.path / "metrics" / f"{name}.json").read_text())


def from_nothing(folder: Path) -> Copy:
    workspace = folder / "workspace"
    workspace.mkdir()
    copy_of_tracked_files(workspace, "smoke")
    env = environment(folder)
    return Copy(workspace, env, call(workspace, env, "dvc", "repro"))


def stages_run(said: str) -> set[str]:
    lines = [line for line in said.splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1] for line in lines}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return from_nothing(tmp_path_factory.mktemp("smoke"))


def test_every_stage_runs_and_leaves_what_is_promised(smoke: Copy) -> None:
    assert stages_run(smoke.said) == LABELS
    for name in ("instruct/config.json", "instruct/model.safetensors", "report/index.html", "report/model_card.md"):
        assert (smoke.path / "artifacts" / name).is_file(), name
    names = {path.relative_to(smoke.path / "metrics").as_posix() for path in (smoke.path / "metrics").rglob("*.json")}
    assert names == {f"{label.replace('@', '/')}.json" for label in LABELS}
    leftovers = [path for path in smoke.path.rglob("*.partial") if ".dvc" not in path.parts]
    assert leftovers == []
    assert list((smoke.path.parent / "scratch").glob("*/*")) == []


def test_metrics_have_the_keys_that_people_lean_on(smoke: Copy) -> None:
    evaluate = smoke.metrics("evaluate")
    assert evaluate["benchmarks"].keys() >= BENCHMARKS and {"average", "average_blind"} <= evaluate.keys()
    for name, figures in evaluate["benchmarks"].items():
        assert {"score", "blind", "majority", "n"} <= figures.keys(), name
        assert 0 <= figures["score"] <= 1 and 0 <= figures["blind"] <= 1
    assert 0 <= evaluate["benchmarks"]["pope"]["yes_rate"] <= 1
    realign = smoke.metrics("realign")
    wanted = "n_texts n_images width text_trace image_trace scale gap_before gap_after gap_heldout sampling_floor"
    assert set(wanted.split()) <= realign.keys()
    assert realign["gap_after"] < realign["gap_before"]


def test_outs_hold_no_path_of_this_machine(smoke: Copy) -> None:
    marks = [str(smoke.path).encode(), str(Path(sys.prefix)).encode()]
    files = [path for path in (smoke.path / "artifacts").rglob("*") if path.is_file()]
    assert [path for path in files if any(mark in path.read_bytes() for mark in marks)] == []


def test_mlflow_has_a_run_a_stage_that_leads_to_dvc_lock(smoke: Copy) -> None:
    with open_store(smoke.path) as (client, experiment_id):
        runs = client.search_runs([experiment_id])
    assert {run.info.run_name for run in runs} >= LABELS
    assert {run.info.status for run in runs} == {"FINISHED"}
    tagged: dict[str, str] = {}
    for run in runs:
        outs = {key: value for key, value in run.data.tags.items() if key.startswith("output.")}
        tagged |= {key.removeprefix("output."): value for key, value in outs.items()}
    assert tagged.items() <= smoke.outs().items() and len(tagged) == len(LABELS) - 1 + 7


def test_the_trained_model_answers(smoke: Copy) -> None:
    picture = str(next(iter(sorted((smoke.path / "artifacts" / "report" / "gallery").glob("*.png")))))
    assert call(smoke.path, smoke.env, "gapbridge", "ask", picture, "how many objects are there").strip()
    assert len(call(smoke.path, smoke.env, "gapbridge", "describe", picture, picture).splitlines()) == 2
    assert "pope" in call(smoke.path, smoke.env, "gapbridge", "summary")


def test_nothing_changed_then_nothing_runs_but_the_look_at_the_sources(smoke: Copy) -> None:
    before = smoke.outs()
    started = time.monotonic()
    assert stages_run(smoke.repro()) == {"sources"}
    assert time.monotonic() - started < 30, "about 2 s on an idle machine"
    assert smoke.outs() == before


def test_a_change_reruns_what_depends_on_it_alone(smoke: Copy) -> None:
    align = smoke.path / "src" / "gapbridge" / "align" / "__init__.py"
    text = align.read_text()
    align.write_text(text + "# edited\n")
    status = json.loads(call(smoke.path, smoke.env, "dvc", "status", "--json"))
    align.write_text(text)
    assert status.keys() - {"sources"} == {"realign", "geometry", "pretrain", "instruct"}
    params = smoke.path / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("max_new_tokens: 24", "max_new_tokens: 2"))
    assert stages_run(smoke.repro()) == {"sources", "evaluate", "report"}
    params.write_text(kept)
    smoke.repro()


@pytest.mark.slow
def test_a_second_clean_run_gives_the_same_bytes(smoke: Copy, tmp_path: Path) -> None:
    assert from_nothing(tmp_path).outs() == smoke.outs()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["embed@images", "pretrain", "instruct"])
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(smoke: Copy, stage: str, tmp_path: Path) -> None:
    expected = smoke.outs()
    env = dict(smoke.env) | {"GAPBRIDGE_SCRATCH": str(tmp_path / "scratch"), "GAPBRIDGE_CACHE": str(tmp_path / "cache")}
    kept = tmp_path / ("cache" if stage.startswith("embed") else "scratch")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "-s", "-f", stage], cwd=smoke.path, env=env, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not whole_files(kept):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the stage ended before it was killed"
    before = {path: path.stat().st_mtime_ns for path in whole_files(kept)}
    assert before, "there was something to go on from"
    assert not (smoke.path / "artifacts" / stage.replace("@", "/")).exists()
    call(smoke.path, env, "dvc", "repro", "-s", "-f", stage)
    assert smoke.outs() == expected


def whole_files(folder: Path) -> list[Path]:
    """Files that were put in place, in folders that were; not the ones being written, nor locks."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and not any("partial" in part or part[0] == "." for part in path.parts)
    ]
