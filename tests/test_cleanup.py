import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from gapbridge.artifacts import dvc_digest, write_json
from gapbridge.cleanup import DAY_SECONDS, leftovers
from gapbridge.errors import InputError
from gapbridge.mirror import open_store
from gapbridge.model_package import register
from gapbridge.operations_cli import cleanup
from gapbridge.stages.runner import scratch_root

DVC = "stages: {{made: {{cmd: 'mkdir out; echo {word} > out/file; echo {word} > single', outs: [out, single]}}}}"


def age(path: Path, days: float = 30) -> None:
    """Make a file or folder that old."""
    for one in (path, *path.rglob("*")):
        moment = one.stat().st_mtime - days * DAY_SECONDS
        os.utime(one, (moment, moment))


def run_folder(home: Path, name: str, status: str | None) -> Path:
    folder = home / "runs" / "realign" / name
    write_json(folder / "run.json", {})
    if status:
        write_json(folder / "status.json", {"status": status})
    age(folder)
    return folder


def names(home: Path, *others: Path, days: float = 14, cache: bool = False) -> set[str]:
    return {Path(one.name).name for one in leftovers(home, days, others, cache)}


def dvc(folder: Path, *arguments: str) -> None:
    """In this process: importing DVC takes longer than what it does here."""
    from dvc.cli import main

    with contextlib.chdir(folder):
        assert main(list(arguments)) == 0


def reproduced(folder: Path, word: str) -> dict[str, Path]:
    """Run a pipeline that writes `word`; its objects in the cache that both share."""
    (folder / "dvc.yaml").write_text(DVC.format(word=word))
    dvc(folder, "repro")
    root = folder.parent / "home" / ".dvc" / "cache" / "files" / "md5"
    digests = {name: dvc_digest(folder / name) for name in ("out", "single", "out/file")}
    return {name: root / digest[:2] / digest[2:] for name, digest in digests.items()}


def test_unfinished_work_goes_when_it_is_old_and_nobody_holds_it(tmp_path: Path) -> None:
    root = scratch_root()
    for name in ("old", "held", "new"):
        (root / name).mkdir()
        (root / name / "step").write_bytes(b"0" * 10)
    age(root / "old")
    age(root / "held")
    with (root / "held.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (one,) = leftovers(tmp_path, 14, [], False)
    assert (one.kind, Path(one.name).name, one.size_bytes) == ("scratch", "old", 10) and 29 < one.age_days < 31
    one.remove()
    assert not (root / "old").exists()


def test_the_last_good_run_of_a_stage_and_one_that_runs_stay(tmp_path: Path) -> None:
    for name, status in (("1", "FINISHED"), ("2", "FINISHED"), ("3", "FAILED"), ("4", None)):
        run_folder(tmp_path, name, status)
    assert names(tmp_path) == {"1", "3"}


def test_runs_of_what_is_registered_stay_in_mlflow(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    model, card = tmp_path / "model", tmp_path / "card"
    model.mkdir()
    (model / "config.json").write_text("{}")
    card.write_text("")
    (tmp_path / "params.yaml").write_text("")
    lock = "stages: {instruct: {outs: [{path: artifacts/instruct, md5: aa}]}}"
    (tmp_path / "dvc.lock").write_text(lock)
    register(tmp_path, "tiny", model, card)
    (tmp_path / "dvc.lock").write_text("stages: {}")
    with open_store(tmp_path) as (client, experiment):
        for name, digest in (("named", "aa"), ("other", "bb")):
            run = client.create_run(experiment, run_name=name, tags={"output.artifacts/instruct": digest})
            client.set_terminated(run.info.run_id, end_time=1)
        client.create_run(experiment, run_name="under way", start_time=1)
        (one,) = leftovers(tmp_path, 14, [], False)
        assert one.name.startswith("other ")
        one.remove()
        assert {run.info.run_name for run in client.search_runs([experiment])} == {"register", "named", "under way"}


def test_a_model_of_others_in_the_same_store_is_left_alone_and_stops_nothing(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with open_store(tmp_path) as (client, experiment):
        run = client.create_run(experiment, run_name="theirs")
        client.set_terminated(run.info.run_id, end_time=1)
        client.create_registered_model("theirs")
        client.create_model_version("theirs", run.info.artifact_uri, run.info.run_id)
    assert leftovers(tmp_path, 14, [], False) == []


def test_a_store_that_goes_away_is_one_line(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with open_store(tmp_path) as (client, experiment):
        run = client.create_run(experiment, run_name="old")
        client.set_terminated(run.info.run_id, end_time=1)
    (one,) = leftovers(tmp_path, 14, [], False)
    shutil.copyfile(tmp_path / "mlflow.db", tmp_path / "kept")
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(InputError, match="the registry does not answer"):
        one.remove()
    shutil.copyfile(tmp_path / "kept", tmp_path / "mlflow.db")
    one.remove()
    assert leftovers(tmp_path, 14, [], False) == []


def test_the_cache_keeps_what_any_lock_names(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
        dvc(folder, "init", "--no-scm", "-q")
    (other / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n[cache]\n    dir = {home / '.dvc' / 'cache'}\n")
    gone = reproduced(home, "first")
    kept = reproduced(home, "second")
    reproduced(other, "third")
    age(home / ".dvc" / "cache")
    third = dvc_digest(other / "single")[2:]
    assert names(home) == set()
    assert names(home, other, cache=True) == {path.name for path in gone.values()}
    assert third in names(home, cache=True)
    for one in leftovers(home, 14, [other], True):
        one.remove()
    assert all(path.exists() for path in kept.values()) and not any(path.exists() for path in gone.values())
    dvc(other, "checkout", "--force")


def test_what_somebody_else_removed_meanwhile_stops_nothing(tmp_path: Path, empty_store: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    dvc(home, "init", "--no-scm", "-q")
    gone = reproduced(home, "first")
    reproduced(home, "second")
    shutil.copyfile(empty_store, home / "mlflow.db")
    with open_store(home) as (client, experiment):
        client.set_terminated(client.create_run(experiment, run_name="old").info.run_id, end_time=1)
    for name in ("1", "2"):
        run_folder(home, name, "FINISHED")
    (scratch_root() / "old").mkdir()
    age(scratch_root() / "old")
    age(home / ".dvc" / "cache")
    mine, theirs = (leftovers(home, 14, [], True) for _ in range(2))
    assert {one.kind for one in mine} == {"scratch", "run", "mlflow run", "dvc object"}
    for one in [*theirs, *mine]:
        one.remove()
    assert not any(path.exists() for path in gone.values()) and leftovers(home, 14, [], True) == []


def test_the_command_lists_and_only_removes_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("1", "2"):
        run_folder(tmp_path, name, "FINISHED")
    listed = CliRunner().invoke(cleanup, [], catch_exceptions=False).output
    assert "1 things" in listed and "would be removed" in listed
    assert (tmp_path / "runs/realign/1").exists()
    said = CliRunner().invoke(cleanup, ["--apply", "--json"], catch_exceptions=False).output
    assert json.loads(said)["removed"] is True
    assert not (tmp_path / "runs/realign/1").exists() and (tmp_path / "runs/realign/2").exists()
