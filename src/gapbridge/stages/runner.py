"""What every stage has in common: params in, one folder and one metrics file out, whole or not at all."""

import ctypes
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.params import Params, load_params
from gapbridge.stages import EMBED_SETS, SEVERAL_PROCESSES, STAGES
from gapbridge.tracking import Tracker, flatten, open_tracker


@dataclass(frozen=True)
class StageRun:
    """What a stage is given.

    `out` is an empty folder that becomes `artifacts/<stage>[/<item>]` when the stage ends well.
    `scratch` outlives a killed process and is found again by a run of the same stage on the same
    inputs and params; it is removed when the stage ends well. Of several processes the first alone `writes`: what the
    others leave in `out` is thrown away.
    """

    name: str
    item: str | None
    params: Params
    workspace: Path
    out: Path
    scratch: Path
    tracker: Tracker
    writes: bool = True

    def artifact(self, *parts: str) -> Path:
        """The folder or file `artifacts/<parts>` that an earlier stage wrote."""
        path = self.workspace.joinpath("artifacts", *parts)
        if not path.exists():
            raise ArtifactError(f"artifacts/{'/'.join(parts)}: missing; run `dvc repro {self.name}`")
        return path


def cache_root() -> Path:
    """Where vectors are remembered across runs and workspaces: `GAPBRIDGE_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gapbridge"
    return _folder("GAPBRIDGE_CACHE", default)


def scratch_root() -> Path:
    """Where unfinished work is kept: `GAPBRIDGE_SCRATCH`, or a folder in the cache."""
    return _folder("GAPBRIDGE_SCRATCH", cache_root() / "scratch")


def _folder(variable: str, default: Path) -> Path:
    """The folder that the environment names, made if need be."""
    path = Path(os.environ.get(variable, default)).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{variable}: {path} cannot be a folder ({error.strerror}); name another") from error
    return path


def run_stage(name: str, item: str | None = None, workspace: Path | None = None) -> dict[str, Any]:
    """Run one stage in `workspace` (default: the current folder) and return its metrics.

    Raises GapbridgeError for what a user can mend; nothing half-written is left behind then.
    """
    workspace = (workspace or Path.cwd()).resolve()
    if name not in STAGES or (name == "embed") != (item in EMBED_SETS):
        raise InputError(
            f"no stage {name} {item or ''}: embed takes one of {', '.join(EMBED_SETS)}, others take nothing"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and name not in SEVERAL_PROCESSES:
        raise InputError(f"{name} is one process; torchrun may start {', '.join(SEVERAL_PROCESSES)}")
    params = load_params(workspace / "params.yaml")
    declared = declaration(workspace, name, item)
    inputs = {dep: artifacts.dvc_digest(workspace / dep) for dep in declared.data if (workspace / dep).exists()}
    recorded = recorded_params(params, declared)
    label = name if item is None else f"{name}@{item}"
    target = workspace.joinpath("artifacts", name, *([item] if item else []))
    code = declared.code_digests(workspace)
    run: Callable[[StageRun], dict[str, Any]] = import_module(f"gapbridge.stages.{name}").run
    scratch_folder = _scratch_folder(label, recorded, inputs | code)
    if int(os.environ.get("RANK", "0")) > 0:
        with tempfile.TemporaryDirectory() as aside:
            return run(StageRun(name, item, params, workspace, Path(aside), scratch_folder, _Silence(), writes=False))
    with (
        _scratch(scratch_folder) as scratch,
        open_tracker(workspace, label, recorded, inputs, declared.runs_always, code_digest(code)) as tracker,
    ):
        with artifacts.fresh_folder(target) as out:
            metrics = run(StageRun(name, item, params, workspace, out, scratch, tracker))
            figures = _as_json(label, metrics)  # before `out` takes its place
        artifacts.write_bytes(_metrics_path(workspace, name, item), figures)
        tracker.finish({out: workspace / out for out in declared.outs}, metrics)
    return metrics


def die_with_parent() -> None:
    """End this process when the one that started it ends, so that a killed `dvc` leaves no stage behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


@dataclass(frozen=True)
class Declaration:
    """What dvc.yaml says of one stage: paths relative to the workspace, and sections of the params."""

    data: tuple[str, ...]
    code: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    runs_always: bool

    def code_digests(self, workspace: Path) -> dict[str, str]:
        """One digest for each code dependency."""
        return {dep: _code_digest(workspace / dep) for dep in self.code}


def recorded_params(params: Params, declared: Declaration) -> dict[str, Any]:
    """The sections of the params that a stage declares, as its run records them."""
    sections = {key: getattr(params, key) for key in declared.params}
    return {key: s.model_dump() if hasattr(s, "model_dump") else s for key, s in sections.items()}


def code_digest(digests: Mapping[str, str]) -> str:
    """One digest of all the code of a stage."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def declaration(workspace: Path, name: str, item: str | None) -> Declaration:
    """What dvc.yaml says of a stage; of its dependencies, those under src/ are its code. Raises InputError."""
    path = workspace / "dvc.yaml"
    try:
        stage = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"][name]
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: does not declare the stage {name}; run inside a gapbridge checkout") from error
    stage = stage.get("do", stage)
    deps, outs = (tuple(path.replace("${item}", item or "") for path in stage.get(key, [])) for key in ("deps", "outs"))
    code = tuple(dep for dep in deps if dep.startswith("src/"))
    data = tuple(dep for dep in deps if dep not in code)
    return Declaration(data, code, tuple(stage.get("params", [])), outs, stage.get("always_changed", False))


def _code_digest(path: Path) -> str:
    """One digest of the Python files at or under `path`, so that unfinished work of older code is not gone on with."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    listing = [[file.name, artifacts.file_digest(file)] for file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _as_json(label: str, metrics: Mapping[str, Any]) -> bytes:
    try:
        return artifacts.json_bytes(metrics)
    except ValueError as error:
        numbers = ((key, value) for key, value in flatten(metrics).items() if isinstance(value, float))
        name = next((key for key, value in numbers if not math.isfinite(value)), "a figure")
        raise ArtifactError(f"{label}: {name} is not a finite number; look at its inputs and params") from error


def _metrics_path(workspace: Path, name: str, item: str | None) -> Path:
    relative = f"{name}.json" if item is None else f"{name}/{item}.json"
    return workspace / "metrics" / relative


class _Silence:
    """The tracker of the further ranks under torchrun: the first one writes and reports, the others only compute."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Says nothing."""

    def finish(self, outs: Mapping[str, Path], metrics: Mapping[str, Any]) -> None:
        """Ends nothing."""


def _scratch_folder(label: str, params: dict[str, Any], inputs: dict[str, str]) -> Path:
    key = hashlib.sha256(json.dumps([label, params, inputs], sort_keys=True).encode()).hexdigest()[:32]
    return scratch_root() / f"{label}-{key}"


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """The scratch folder of exactly this work, held by one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        yield folder
        # Only after a good end, and before the lock goes: the next process starts on an empty folder.
        shutil.rmtree(folder)
