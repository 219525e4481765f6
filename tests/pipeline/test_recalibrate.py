"""The flow `recalibrate`: on a toy pipeline whose alignment is a real one, and on the real stages at smoke size."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from flows import pipeline, workspace
from flows.recalibrate import recalibrate
from gapbridge.corpus.manifest import read_manifest
from gapbridge.profiles import overlay

from .conftest import call, copy_of_tracked_files, environment
from .served import Server

PIPELINE = """
stages:
  sources: {cmd: "mkdir -p artifacts; cat data/*.npy | md5sum > artifacts/sources", always_changed: true,
            outs: [artifacts/sources]}
  ingest: {cmd: "mkdir -p artifacts/ingest; cp data/*.npy artifacts/ingest", deps: [artifacts/sources],
           outs: [artifacts/ingest/texts.npy, artifacts/ingest/images.npy]}
  embed:
    foreach: [texts, images]
    do:
      cmd: "mkdir -p artifacts/embed/${item}/${item}; cp artifacts/ingest/${item}.npy artifacts/embed/${item}/${item}"
      deps: ["artifacts/ingest/${item}.npy"]
      outs: ["artifacts/embed/${item}"]
  realign:
    cmd: gapbridge align fit --texts artifacts/embed/texts/texts --images artifacts/embed/images/images
         --out artifacts/realign
    deps: [artifacts/embed/texts, artifacts/embed/images]
    outs: [artifacts/realign]
  pretrain: {cmd: "cp artifacts/realign/*.safetensors artifacts/pretrain", deps: [artifacts/realign],
             outs: [artifacts/pretrain]}
  llm: {cmd: "echo llm > artifacts/llm", outs: [artifacts/llm]}
"""
WIDTH, ROWS = 16, 400


def vectors(rows: int, mean: float, seed: int) -> np.ndarray:
    """Unit rows (rows, 16) about a mean."""
    drawn = np.random.default_rng(seed).normal(mean, 0.5, (rows, WIDTH))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def fitted(toy: Path, told: Server) -> Path:
    """The toy workspace with vectors of texts and images, its chain run once."""
    (toy / "dvc.yaml").write_text(PIPELINE)
    (toy / "data").mkdir()
    for seed, (name, mean) in enumerate({"texts": -0.3, "images": 0.3}.items()):
        np.save(toy / "data" / f"{name}.npy", vectors(ROWS, mean, seed))
    said = pipeline.dvc(toy, "repro", "-q")
    assert said.status == 0, said.error
    return toy


def append(folder: Path, mean: float, rows: int = 40) -> None:
    path = folder / "data" / "texts.npy"
    np.save(path, np.concatenate([np.load(path), vectors(rows, mean, 7)]))


def touched(folder: Path) -> dict[str, int]:
    """When each artifact was written last."""
    return {
        path.relative_to(folder / "artifacts").as_posix(): path.stat().st_mtime_ns
        for path in (folder / "artifacts").rglob("*")
        if path.is_file()
    }


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """The artifacts, by their first part, that were written meanwhile."""
    return {name.split("/")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def run(folder: Path, **parameters: Any) -> Any:
    return recalibrate(str(folder), return_state=True, **parameters)


def test_it_fits_while_texts_are_of_the_same_kind_and_is_fitted_again_for_others(fitted: Path, told: Server) -> None:
    before = touched(fitted)
    ended = run(fitted)
    assert (ended.name, ended.result()) == ("Fits", {"drifted": False, "stale": []})
    assert changed(before, touched(fitted)) == {"sources"}
    append(fitted, -0.3)
    ended = run(fitted)
    assert (ended.name, ended.result()) == ("Fits", {"drifted": False, "stale": ["pretrain", "realign"]})
    assert changed(before, touched(fitted)) == {"sources", "ingest", "embed"}
    append(fitted, 0.5, ROWS)
    ended = run(fitted, refit=False)
    assert (ended.name, ended.result()) == ("Drifted", {"drifted": True, "stale": ["pretrain", "realign"]})
    ended = run(fitted)
    assert (ended.name, ended.result()) == ("Refitted", {"drifted": True, "stale": ["pretrain"]})
    assert (
        ended.message == "the alignment did not fit any more and was fitted again; to be run again by train: pretrain"
    )
    assert changed(before, touched(fitted)) == {"sources", "ingest", "embed", "realign"}
    found = told.artifacts(told.last_run("recalibrate")["id"])["recalibration"]
    assert ended.message in found["data"] and "| gap_stored | 0." in found["data"]
    assert found["description"] == "Refitted"


def test_what_cannot_be_recalibrated_is_said_in_one_line(fitted: Path) -> None:
    np.save(fitted / "data" / "texts.npy", vectors(ROWS, -0.3, 0)[:, :8].copy())
    ended = run(fitted)
    assert ended.is_failed() and ended.message.startswith("drift: ") and "\n" not in ended.message
    (fitted / "data" / "texts.npy").unlink()
    ended = run(fitted)
    assert ended.is_failed() and ended.message.startswith("ingest: ")
    shutil.rmtree(fitted / "artifacts" / "realign")
    ended = run(fitted)
    assert ended.is_failed() and ended.message.endswith("no alignment yet; run the flow train, or `dvc repro`")


@pytest.mark.slow
def test_a_clone_begins_with_the_outs_of_the_newest_completed_run(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fitted / ".gitignore").write_text("/artifacts/\n/data/\n/.stack/\n")
    config = fitted / ".dvc" / "config"
    config.write_text(config.read_text().replace("no_scm = True", "analytics = false"))
    (fitted / "params.yaml").write_text("{}\n")
    lock = (fitted / "dvc.lock").read_text()
    (fitted / "dvc.lock").unlink()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "toy"]):
        subprocess.run([*git, *command], cwd=fitted, check=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.delenv("GAPBRIDGE_STACK", raising=False)
    ended = run(fitted, own_workspace=True)
    assert ended.is_failed() and ended.message.endswith("no completed run of train yet; run the flow train first")
    (fitted / "dvc.lock").write_text(lock)
    workspace.keep_record(fitted, "first", fitted, {"state": "Completed"})
    (fitted / "dvc.lock").write_text(lock.replace("realign", "another"))
    workspace.keep_record(fitted, "without-alignment", fitted, {"state": "Completed"})
    workspace.keep_record(fitted, "failed", fitted, {"state": "Failed"})
    (fitted / "dvc.lock").unlink()
    assert workspace.newest_record(fitted) == fitted / ".stack/runs/first"
    append(fitted, 0.5, ROWS)
    shutil.rmtree(fitted / "artifacts")
    ended = run(fitted, own_workspace=True)
    assert (ended.name, ended.result()["stale"]) == ("Refitted", ["pretrain"])
    assert not (fitted / "artifacts").exists() and not list((fitted / ".stack/workspaces").iterdir())
    # The next one begins where this one ended.
    ended = run(fitted, own_workspace=True)
    assert (ended.name, ended.result()["stale"]) == ("Fits", ["pretrain"])


@pytest.mark.slow
def test_real_stages_encode_the_news_alone(tmp_path: Path, told: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "workspace"
    folder.mkdir()
    copy_of_tracked_files(folder, "smoke")
    env = environment(tmp_path)
    for name in ("GAPBRIDGE_CACHE", "GAPBRIDGE_SCRATCH"):
        monkeypatch.setenv(name, env[name])
    texts = folder / "data" / "texts.jsonl"
    texts.parent.mkdir(exist_ok=True)
    call(folder, env, "gapbridge", "sources")
    call(folder, env, "gapbridge", "ingest")
    drawn = read_manifest(folder / "artifacts/ingest/texts")["text"].to_list()
    _write(texts, drawn[:600])
    params = yaml.safe_load((folder / "params.yaml").read_text())
    mine = {"sources": {"texts": {"format": "jsonl", "path": "data/texts.jsonl"}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(overlay(params, mine)))
    call(folder, env, "dvc", "repro", "-q")
    before = touched(folder)
    ended = run(folder)
    assert (ended.name, ended.result()) == ("Fits", {"drifted": False, "stale": []})
    assert changed(before, touched(folder)) == {"sources"}
    known = encoded(tmp_path / "cache")
    _write(texts, drawn[:640])
    ended = run(folder)
    assert ended.name == "Fits"
    assert encoded(tmp_path / "cache") - known == len(set(drawn[:640]) - set(drawn[:600])) > 0
    assert json.loads((folder / "metrics/embed/texts.json").read_text())["rows"] == 640
    assert changed(before, touched(folder)) == {"sources", "ingest", "embed"}
    other = [f"quarterly revenue of company {n} fell by {n % 7} percent because of rates" for n in range(600)]
    _write(texts, drawn[:640] + other)
    started = time.monotonic()
    ended = run(folder)
    print(f"recalibrated in {time.monotonic() - started:.0f} s: {ended.message}")
    assert ended.name == "Refitted"
    assert set(ended.result()["stale"]) == {"geometry", "pretrain", "instruct", "evaluate", "report"}
    assert changed(before, touched(folder)) == {"sources", "ingest", "embed", "realign"}


def _write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def encoded(cache: Path) -> int:
    """How many contents were ever encoded: the cache has a row for each."""
    return sum(len(load_file(path)["rows"]) for path in cache.rglob("block-*.safetensors"))
