"""What may go: unfinished work, run folders, MLflow runs and DVC objects that are old and that nothing names any more.

What a registered version names stays, and what a workspace names: this one and every other one that is told of. The
DVC cache is looked at only when asked for, since other workspaces may use it that nobody told of.
"""

import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gapbridge.errors import ArtifactError
from gapbridge.promotion.evidence import locked_stages
from gapbridge.registry import Registry, has_store, pages
from gapbridge.stages.runner import scratch_root

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Leftover:
    """One thing that may go; `remove` lets it go."""

    kind: str
    name: str
    age_days: float
    size_bytes: int
    remove: Callable[[], None]


@dataclass(frozen=True)
class Kept:
    """What must stay: digests of outs as DVC writes them, and MLflow runs by id."""

    digests: frozenset[str]
    runs: frozenset[str]


def leftovers(workspace: Path, older_than_days: float, others: Sequence[Path], with_cache: bool) -> list[Leftover]:
    """Everything older than that which may go, the largest first; nothing is removed.

    `others` are further folders with a dvc.lock whose outs stay. Raises ArtifactError when a lock cannot be read and
    InputError when MLflow does not answer: what they name would be unknown.
    """
    registry = Registry(workspace) if has_store(workspace) else None
    kept = _kept(registry, workspace, others)
    found = [*_scratch(), *_run_folders(workspace), *(_mlflow_runs(registry, kept) if registry else ())]
    if with_cache:
        found += _cache_objects(workspace, kept)
    old = [one for one in found if one.age_days > older_than_days]
    return sorted(old, key=lambda one: (-one.size_bytes, one.kind, one.name))


def _kept(registry: Registry | None, workspace: Path, others: Sequence[Path]) -> Kept:
    locks = [folder / "dvc.lock" for folder in (workspace, *others)]
    runs: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        versions = [one for model in registry.models() for one in registry.versions(model.name)] if registry else []
        for version in versions:
            runs.add(version.run_id)
            if registry and version.digest:  # else a decision, or a model that no DVC made
                target = Path(folder) / version.run_id
                target.mkdir(exist_ok=True)
                lock = registry.part(version, "dvc.lock", target)
                if lock is None:
                    raise ArtifactError(f"{version}: its dvc.lock is gone from the store; delete the version first")
                locks.append(lock)
        digests = {digest for lock in locks for digest in _named(lock)}
    return Kept(frozenset(digests), frozenset(runs))


def _named(lock: Path) -> Iterator[str]:
    """Every digest in a dvc.lock."""
    for stage in locked_stages(lock).values():
        for entry in (*stage.get("deps", []), *stage.get("outs", [])):
            if "md5" in entry:
                yield entry["md5"]


def _scratch() -> Iterator[Leftover]:
    """Unfinished work that no process holds."""
    for folder in sorted(path for path in scratch_root().iterdir() if path.is_dir()):
        lock = folder.with_suffix(".lock")
        if not _is_held(lock):
            yield from _folder("scratch", folder, partial(_remove_scratch, folder, lock))


def _remove_scratch(folder: Path, lock: Path) -> None:
    """Hold the lock meanwhile, so that no stage starts on what goes."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    with suppress(FileNotFoundError):  # its stage has ended well meanwhile, or another cleanup was faster
        shutil.rmtree(folder)


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _run_folders(workspace: Path) -> Iterator[Leftover]:
    """All but the last good run of each stage, and those that still run."""
    for stage in sorted(path for path in (workspace / "runs").glob("*") if path.is_dir()):
        runs = sorted(path for path in stage.iterdir() if (path / "run.json").exists())
        good = [run for run in runs if _status(run) == "FINISHED"]
        for run in runs:
            if _status(run) is not None and run not in good[-1:]:
                yield from _folder("run", run, partial(_remove_folder, run))


def _status(run: Path) -> str | None:
    """How a run ended; None while nobody wrote that down."""
    try:
        return json.loads((run / "status.json").read_text())["status"]
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{run}/status.json: cannot be read; remove the folder by hand") from error


def _mlflow_runs(registry: Registry, kept: Kept) -> Iterator[Leftover]:
    """Ended runs that belong to no registered version, no decision and no out that stays; MLflow can restore them."""
    client = registry.client
    for run in pages(client.search_runs, [registry.experiment_id], max_results=1000):
        outs = {digest for key, digest in run.data.tags.items() if key.startswith("output.")}
        if run.info.end_time and run.info.run_id not in kept.runs and not outs & kept.digests:
            name = f"{run.info.run_name} {run.info.run_id}"
            age_days = _age_days(run.info.end_time / 1000)
            yield Leftover("mlflow run", name, age_days, 0, _deletion(client, run.info.run_id))


def _deletion(client: Any, run_id: str) -> Callable[[], None]:
    def delete() -> None:
        if client.get_run(run_id).info.lifecycle_stage == "active":  # else another cleanup was faster
            client.delete_run(run_id)

    return delete


def _cache_objects(workspace: Path, kept: Kept) -> Iterator[Leftover]:
    """Objects of the DVC cache that no kept lock names, directly or by a folder's listing."""
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        root = Path(repo.cache.local.path)
    named = set(kept.digests)
    for digest in [one for one in kept.digests if one.endswith(".dir")]:
        named.update(_listed(_object(root, digest)))
    for path in sorted(root.glob("??/*")):
        if path.parent.name + path.name not in named:
            yield from _file("dvc object", path)


def _listed(listing: Path) -> Iterable[str]:
    """The digests in a folder's listing; none where the cache lacks it."""
    if not listing.exists():
        return []
    try:
        return [entry["md5"] for entry in json.loads(listing.read_text())]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{listing}: damaged; run `dvc status` and mend the cache first") from error


def _object(root: Path, digest: str) -> Path:
    return root / digest[:2] / digest[2:]


def _folder(kind: str, path: Path, remove: Callable[[], None]) -> Iterator[Leftover]:
    """A folder as one thing; nothing where somebody else has removed it meanwhile."""
    with suppress(FileNotFoundError):
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        newest = max((file.st_mtime for file in files), default=path.stat().st_mtime)
        yield Leftover(kind, str(path), _age_days(newest), sum(file.st_size for file in files), remove)


def _file(kind: str, path: Path) -> Iterator[Leftover]:
    with suppress(FileNotFoundError):  # as above: DVC puts its unfinished copies there too
        facts = path.stat()
        yield Leftover(kind, str(path), _age_days(facts.st_mtime), facts.st_size, lambda: path.unlink(missing_ok=True))


def _age_days(seconds: float) -> float:
    return (time.time() - seconds) / DAY_SECONDS
