"""A workspace of its own for one flow run: a clone of the checkout at its commit, on the checkout's DVC cache.

The clone takes params.yaml as it stands and finds the user's data. What a run leaves, its outs apart, is kept in a
record; then the workspace goes. A run that was killed leaves its workspace, which `abandoned` finds.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from flows import pipeline
from flows.pipeline import PipelineError

_RECORDED = ("dvc.lock", "params.yaml", "metrics", "runs")
_ALIGNMENT = "realign"
_LOCAL_CONFIG = Path(".dvc", "config.local")


def home(checkout: Path) -> Path:
    """Where workspaces and records lie: `GAPBRIDGE_STACK`, or the checkout's .stack."""
    return Path(os.environ.get("GAPBRIDGE_STACK") or checkout / ".stack")


@contextmanager
def own_workspace(checkout: Path, run: str) -> Iterator[Path]:
    """A fresh workspace for `run`, removed when the block ends, however it does.

    Its DVC cache and remotes are the checkout's. Raises PipelineError where the checkout cannot be cloned, and where
    MLFLOW_TRACKING_URI is not set: what a run tells MLflow would go with its workspace.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise PipelineError("a run in a workspace of its own needs a lasting MLflow; set MLFLOW_TRACKING_URI")
    folder = home(checkout) / "workspaces" / run
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, wait=True):
        try:
            _clone(checkout, folder)
            _connect(checkout, folder)
            yield folder
        finally:
            _discard(folder)


def keep_record(checkout: Path, run: str, workspace: Path, description: Mapping[str, str]) -> Path:
    """Keep dvc.lock, params, metrics and run files of a workspace, whole or not at all; returns the record's folder.

    `record.json` holds `description` and the commit.
    """
    record = home(checkout) / "runs" / run
    partial = record.with_name(f".{run}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in _RECORDED:
        if (workspace / name).is_dir():
            shutil.copytree(workspace / name, partial / name)
        elif (workspace / name).exists():
            shutil.copy(workspace / name, partial / name)
    content = dict(description) | {"commit": _git(workspace, "rev-parse", "HEAD")}
    (partial / "record.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(record, ignore_errors=True)
    partial.replace(record)
    return record


def restore(checkout: Path, folder: Path) -> Path:
    """Take the newest record of a completed run that fitted an alignment: its dvc.lock and, from the cache, its outs.

    Returns the record. Raises PipelineError where there is none, or the cache has lost what it names.
    """
    record = newest_record(checkout)
    if record is None:
        raise PipelineError(f"{home(checkout) / 'runs'}: no completed run of train yet; run the flow train first")
    shutil.copy(record / "dvc.lock", folder / "dvc.lock")
    if (record / "metrics").is_dir():
        shutil.copytree(record / "metrics", folder / "metrics", dirs_exist_ok=True)
    done = pipeline.dvc(folder, "checkout", "--force")
    if done.status != 0:
        raise PipelineError(f"{record.name}: dvc checkout: {done.error}; `dvc pull` with its dvc.lock")
    return record


def newest_record(checkout: Path) -> Path | None:
    """The record of the run that completed last and whose dvc.lock knows an alignment."""
    found = []
    for path in (home(checkout) / "runs").glob("[!.]*/record.json"):
        lock = path.with_name("dvc.lock")
        if json.loads(path.read_text())["state"] == "Completed" and lock.is_file() and _fitted(lock):
            found.append((path.stat().st_mtime_ns, path.parent))
    return max(found)[1] if found else None


def old_records(checkout: Path, older_than_days: float) -> list[Path]:
    """Records of runs that ended that long ago; the one that the next run begins with stays, however old."""
    latest = time.time() - older_than_days * 86_400
    newest = newest_record(checkout)
    records = sorted(path for path in (home(checkout) / "runs").glob("[!.]*/record.json") if path.parent != newest)
    return [path.parent for path in records if path.stat().st_mtime < latest]


def _fitted(lock: Path) -> bool:
    return _ALIGNMENT in (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})


def abandoned(checkout: Path) -> list[Path]:
    """The workspaces that no run holds: those of runs that were killed."""
    folders = sorted(path for path in (home(checkout) / "workspaces").glob("*") if path.is_dir())
    return [folder for folder in folders if not _held(_lock_path(folder))]


def remove_abandoned(folder: Path) -> bool:
    """Remove a workspace, unless a run holds it meanwhile: one that was killed and is tried again has it again.

    What its stages finished stays in the DVC cache.
    """
    with _locked(folder, wait=False) as free:
        if free:
            _discard(folder)
    return free


def with_locks(checkout: Path) -> list[Path]:
    """Every folder of a run that names outs by a dvc.lock: workspaces, and records of runs that ended."""
    found = [*(home(checkout) / "workspaces").glob("*"), *(home(checkout) / "runs").glob("*")]
    return sorted(folder for folder in found if (folder / "dvc.lock").is_file())


def has_remote(workspace: Path) -> bool:
    """Whether `dvc push` has somewhere to push to."""
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        return bool(repo.config["core"].get("remote"))


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Whether nobody else holds the workspace; without `wait` that may be False. Else it is held until the block ends.

    Whoever removes a workspace removes its lock file: to hold that one would keep nobody out.
    """
    path = _lock_path(folder)
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if _is_the_file_at(path, lock.fileno()):
                yield True
                return


def _is_the_file_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_path(folder).unlink(missing_ok=True)


def _held(lock_path: Path) -> bool:
    try:
        with lock_path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _clone(checkout: Path, folder: Path) -> None:
    """The checkout's commit, its params as they stand, and its data, which git does not know."""
    shutil.rmtree(folder, ignore_errors=True)
    _git(checkout, "clone", "--quiet", "--shared", "--", str(checkout), str(folder))
    shutil.copy(checkout / "params.yaml", folder / "params.yaml")
    if (checkout / "data").is_dir() and not (folder / "data").exists():
        (folder / "data").symlink_to(checkout / "data")


def _connect(checkout: Path, folder: Path) -> None:
    """Give the clone the checkout's own DVC settings, keys included, and its cache.

    The committed ones too: a path in them is relative to where the checkout is, not the clone.
    """
    from dvc.config import merge
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(checkout)) as shared, Repo(str(folder)) as own:
            (folder / _LOCAL_CONFIG).touch(mode=0o600)
            settings = shared.config.load_one("repo")
            merge(settings, shared.config.load_one("local"))
            cache = shared.cache.local_cache_dir
            with own.config.edit("local") as config:
                config.update(settings)
                config.setdefault("cache", {})["dir"] = cache
    except DvcException as error:
        raise PipelineError(f"{checkout}: {' '.join(str(error).split())}") from error


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PipelineError(f"{folder}: git {arguments[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
