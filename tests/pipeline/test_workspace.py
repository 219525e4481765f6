"""A workspace of its own for each run, on a toy pipeline in a git repository."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from flows import pipeline, workspace

HOLD = """
import sys, time
from pathlib import Path
from flows import workspace
with workspace.own_workspace(Path(sys.argv[1]), "held") as folder:
    print(folder, flush=True)
    time.sleep(300)
"""


def ignore(line: str) -> None:
    """Nobody reads it."""


@pytest.fixture
def checkout(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy pipeline committed, then params edited and data added that git does not know."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.delenv("GAPBRIDGE_STACK", raising=False)
    ours = (Path(__file__).resolve().parents[2] / ".gitignore").read_text()
    (toy / ".gitignore").write_text(f"{ours}/o/\n/.dvc/tmp/\n/.dvc/cache/\n/.dvc/config.local\n/.dvc/.gitignore\n")
    (toy / "params.yaml").write_text("seed: 0\n")
    (toy / "src").mkdir()
    (toy / "src" / "code.py").write_text("ANSWER = 1\n")
    config = toy / ".dvc" / "config"
    config.write_text(config.read_text().replace("no_scm = True", "analytics = false"))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "toy"]):
        subprocess.run([*git, *command], cwd=toy, check=True)
    (toy / "params.yaml").write_text("seed: 7\n")
    (toy / "data").mkdir()
    (toy / "data" / "texts.txt").write_text("a text\n")
    return toy


def test_it_is_the_commit_with_params_data_cache_and_settings_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    local = checkout / ".dvc" / "config.local"
    local.write_text("[core]\n    remote = near\n['remote \"near\"']\n    url = ../../near\n")
    (checkout / "in").write_text("not committed")
    with workspace.own_workspace(checkout, "run-1") as folder:
        assert folder == checkout / ".stack" / "workspaces" / "run-1"
        assert (folder / "in").read_text() == "1"
        assert (folder / "params.yaml").read_text() == "seed: 7\n"
        assert (folder / "data" / "texts.txt").read_text() == "a text\n"
        changed = subprocess.run(["git", "status", "--short"], cwd=folder, capture_output=True, text=True, check=True)
        assert changed.stdout == " M params.yaml\n"
        assert (folder / ".dvc" / "config.local").stat().st_mode & 0o777 == 0o600
        assert workspace.has_remote(folder)
        assert pipeline.run_stage(folder, "sources", ignore).status == "ran"
        assert pipeline.run_stage(folder, "left", ignore).status == "ran"
        assert pipeline.push(folder, ignore).status == "ran"
    assert not folder.exists() and not list(folder.parent.iterdir())
    assert [path.read_text() for path in (tmp_path / "near").rglob("*") if path.is_file()] == ["1"]
    assert not (checkout / "o").exists()
    with workspace.own_workspace(checkout, "run-2") as folder:
        pipeline.run_stage(folder, "sources", ignore)
        assert pipeline.run_stage(folder, "left", ignore).status == "cached"
    objects = checkout / ".dvc" / "cache" / "files" / "md5"
    assert [path.read_text() for path in objects.rglob("*") if path.is_file()] == ["1"]
    assert {path.parent.parent for path in objects.rglob("*") if path.is_file()} == {objects}


def test_a_push_that_fails_says_why(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "near").write_text("a file where the remote's folder should be")
    (checkout / ".dvc" / "config.local").write_text(
        "[core]\n    remote = near\n['remote \"near\"']\n    url = ../../near\n"
    )
    with workspace.own_workspace(checkout, "run") as folder:
        pipeline.run_stage(folder, "sources", ignore)
        pipeline.run_stage(folder, "left", ignore)
        outcome = pipeline.push(folder, ignore)
    assert outcome.status == "failed" and outcome.reason


def test_an_error_of_dvc_that_has_several_lines_is_one(checkout: Path) -> None:
    outcome = pipeline.push(checkout, ignore)
    assert outcome.reason is not None
    assert outcome.reason.startswith("failed to push data to the cloud - config file error: no remote specified in")
    assert outcome.reason.endswith("Create a default remote with dvc remote add -d <remote name> <remote url>")


def test_without_a_remote_there_is_nowhere_to_push(checkout: Path) -> None:
    with workspace.own_workspace(checkout, "run") as folder:
        assert not workspace.has_remote(folder)


def test_its_own_code_runs_and_not_the_checkouts(checkout: Path) -> None:
    (checkout / "src" / "code.py").write_text("ANSWER = 2\n")
    text = yaml.safe_load((checkout / "dvc.yaml").read_text())
    text["stages"]["sources"]["cmd"] = "mkdir -p o && python -c 'import code; print(code.ANSWER)' > o/sources"
    with workspace.own_workspace(checkout, "run") as folder:
        (folder / "dvc.yaml").write_text(yaml.safe_dump(text))
        pipeline.run_stage(folder, "sources", ignore)
        assert (folder / "o" / "sources").read_text() == "1\n"


def test_a_record_keeps_what_a_run_leaves_but_its_outs(checkout: Path) -> None:
    with workspace.own_workspace(checkout, "run") as folder:
        pipeline.run_stage(folder, "sources", ignore)
        (folder / "metrics").mkdir()
        (folder / "metrics" / "left.json").write_text("{}")
        record = workspace.keep_record(checkout, "run", folder, {"state": "Completed"})
    assert {path.name for path in record.iterdir()} == {"dvc.lock", "params.yaml", "metrics", "record.json"}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    assert json.loads((record / "record.json").read_text()) == {"state": "Completed", "commit": commit.stdout.strip()}
    assert (record / "params.yaml").read_text() == "seed: 7\n"


def test_records_grow_old_but_for_the_one_that_the_next_run_begins_with(checkout: Path) -> None:
    (checkout / "dvc.lock").write_text("stages: {realign: {}}")
    names = ("first", "second", "failed", "young")
    for place, name in enumerate(names):
        state = "Completed" if name in ("first", "second") else "Failed"
        record = workspace.keep_record(checkout, name, checkout, {"state": state}) / "record.json"
        moment = time.time() - (0 if name == "young" else (30 - place) * 86_400)
        os.utime(record, (moment, moment))
    assert workspace.newest_record(checkout) == checkout / ".stack/runs/second"
    assert [folder.name for folder in workspace.old_records(checkout, 14)] == ["failed", "first"]
    assert workspace.old_records(checkout, 100) == []


def test_a_run_that_fails_leaves_nothing_and_a_killed_one_is_found(checkout: Path) -> None:
    with pytest.raises(ValueError, match="own"), workspace.own_workspace(checkout, "failed"):
        raise ValueError("own")
    assert not list((checkout / ".stack" / "workspaces").iterdir())
    root = Path(__file__).resolve().parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(checkout)], env=dict(os.environ) | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert folder.is_dir() and workspace.abandoned(checkout) == []
        assert not workspace.remove_abandoned(folder) and folder.is_dir()
        holder.send_signal(signal.SIGKILL)
    assert workspace.abandoned(checkout) == [folder]
    assert workspace.remove_abandoned(folder)
    assert workspace.abandoned(checkout) == [] and not list(folder.parent.iterdir())


def test_a_run_that_waited_for_its_workspace_to_be_removed_holds_the_new_one(checkout: Path) -> None:
    lock = checkout / ".stack" / "workspaces" / "again.lock"
    lock.parent.mkdir(parents=True)
    begun, seen = threading.Event(), threading.Event()

    def run() -> None:
        with workspace.own_workspace(checkout, "again"):
            begun.set()
            seen.wait(60)

    with lock.open("w") as removing, ThreadPoolExecutor() as pool:
        fcntl.flock(removing, fcntl.LOCK_EX)
        running = pool.submit(run)
        assert not begun.wait(0.5)
        lock.unlink()
        fcntl.flock(removing, fcntl.LOCK_UN)
        assert begun.wait(60)
        found = workspace.abandoned(checkout)
        seen.set()
        running.result()
    assert found == [] and not list(lock.parent.iterdir())


def test_a_remote_that_was_committed_is_the_checkouts(checkout: Path, tmp_path: Path) -> None:
    config = checkout / ".dvc" / "config"
    config.write_text("[core]\n    remote = near\n['remote \"near\"']\n    url = ../../near\n")
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "remote"], cwd=checkout, check=True
    )
    with workspace.own_workspace(checkout, "run") as folder:
        pipeline.run_stage(folder, "sources", ignore)
        pipeline.run_stage(folder, "left", ignore)
        assert pipeline.push(folder, ignore).status == "ran"
        assert set((checkout / ".stack" / "workspaces").iterdir()) == {folder, folder.with_name("run.lock")}
    assert [path.read_text() for path in (tmp_path / "near").rglob("*") if path.is_file()] == ["1"]


def test_outs_that_the_cache_has_lost_are_one_line(checkout: Path) -> None:
    with workspace.own_workspace(checkout, "first") as folder:
        pipeline.run_stage(folder, "sources", ignore)
        pipeline.run_stage(folder, "left", ignore)
        lock = folder / "dvc.lock"
        lock.write_text(lock.read_text().replace("left", "realign"))
        workspace.keep_record(checkout, "first", folder, {"state": "Completed"})
    shutil.rmtree(checkout / ".dvc" / "cache")
    with workspace.own_workspace(checkout, "second") as folder:
        dvc_yaml = folder / "dvc.yaml"
        dvc_yaml.write_text(dvc_yaml.read_text().replace("left", "realign"))
        said = r"^first: dvc checkout: Checkout failed for following targets: .*\bo/realign\b[^<?]*; `dvc pull` with"
        with pytest.raises(pipeline.PipelineError, match=said):
            workspace.restore(checkout, folder)


def test_what_cannot_work_is_said_in_one_line(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    failed = pytest.raises(pipeline.PipelineError, match="git clone failed")
    with failed, workspace.own_workspace(tmp_path / "plain", "run"):
        raise AssertionError
    plain = tmp_path / "plain"
    for command in (["init", "-q"], ["commit", "-qm", "empty", "--allow-empty"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command], cwd=plain, check=True)
    (plain / "params.yaml").write_text("{}")
    failed = pytest.raises(pipeline.PipelineError, match="plain: you are not inside of a DVC repository")
    with failed, workspace.own_workspace(plain, "run"):
        raise AssertionError
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    failed = pytest.raises(pipeline.PipelineError, match="set MLFLOW_TRACKING_URI")
    with failed, workspace.own_workspace(checkout, "run"):
        raise AssertionError
