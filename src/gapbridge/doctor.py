"""What is missing here, too old, damaged or not reachable, and what to do about it: `gapbridge doctor`."""

import platform
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gapbridge import doctor_services
from gapbridge.doctor_services import Check, Status
from gapbridge.errors import GapbridgeError
from gapbridge.params import load_params

# A smoke run needs 1 GB beside the installation, a run on data of one's own far more.
_LEAST_DISK_BYTES, _AMPLE_DISK_BYTES = 1 << 30, 10 << 30
_NEEDED, _OPTIONAL = ("", "geometry", "train"), ("serve", "ops")
_SECRET_VARIABLES = re.compile(r"(PASSWORD|SECRET(_ACCESS)?(_KEY)?|TOKEN|API_KEY|AUTH_STRING)$")
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s'\"]*@")


def examine(workspace: Path, environment: Mapping[str, str]) -> list[Check]:
    """Look at the installation, the workspace, the machine, and the services that `environment` names.

    No text of a check holds a password, key or token of the environment or of an address.
    """
    checks = [*_installation(), *_workspace(workspace, environment), *_machine(workspace, environment)]
    checks += doctor_services.examine(workspace, environment)
    return [_without_secrets(check, environment) for check in checks]


def all_well(checks: Iterable[Check]) -> bool:
    """Whether nothing failed; warnings stop nothing."""
    return all(check.status != "failed" for check in checks)


def as_text(checks: Sequence[Check]) -> str:
    """One line a check, with its remedy."""
    width = max(len(check.name) for check in checks)
    return "\n".join(
        f"{check.status:<8} {check.name:<{width}}  {check.found}{'; ' if check.remedy else ''}{check.remedy}"
        for check in checks
    )


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The same for programs: `well`, and `checks` with name, status, found and remedy."""
    return {"well": all_well(checks), "checks": [asdict(check) for check in checks]}


def _without_secrets(check: Check, environment: Mapping[str, str]) -> Check:
    found, remedy = check.found, check.remedy
    for name, value in environment.items():
        if value and _SECRET_VARIABLES.search(name):
            found, remedy = found.replace(value, "***"), remedy.replace(value, "***")
    return Check(check.name, check.status, *(_USER_IN_ADDRESS.sub("***@", text) for text in (found, remedy)))


def _installation() -> Iterator[Check]:
    wanted, version = metadata.metadata("gapbridge")["Requires-Python"], platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Check("python", "well", version)
    else:
        yield Check("python", "failed", f"{version} does not fit {wanted}", "make a new .venv with another python")
    for extra in (*_NEEDED, *_OPTIONAL):
        yield _packages(extra)
    if shutil.which("gapbridge") is None:
        yield Check("command", "failed", "DVC will not find `gapbridge` on PATH", "`. .venv/bin/activate`")


def _packages(extra: str) -> Check:
    """The packages that pyproject.toml asks for under one extra: there, and of a version that fits?"""
    name = f"packages {extra}".strip()
    missing, unfit, requirements = [], [], list(_required("gapbridge", extra))
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            unfit.append(f"{requirement.name} {version} does not fit {requirement.specifier}")
    if not missing and not unfit:
        return Check(name, "well", f"{len(requirements)} there")
    said = [*unfit, *([f"missing: {', '.join(missing)}"] if missing else [])]
    status: Status = "failed" if unfit or extra in _NEEDED else "warning"
    return Check(name, status, "; ".join(said), "`make setup` installs what requirements.lock names")


def _required(distribution: str, extra: str) -> Iterator[Requirement]:
    """What a distribution asks for under an extra, and what the extras of those ask for; "" for no extra."""
    for line in metadata.requires(distribution) or []:
        requirement = Requirement(line)
        marked = requirement.marker is not None and "extra" in str(requirement.marker)
        belongs = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if requirement.name == "gapbridge" or marked != bool(extra) or not belongs:
            continue
        yield requirement
        with suppress(metadata.PackageNotFoundError):
            for further in requirement.extras:
                yield from _required(requirement.name, further)


def _workspace(workspace: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    try:
        load_params(workspace / "params.yaml")
        yield Check("params.yaml", "well", "valid")
    except GapbridgeError as error:
        yield Check("params.yaml", "failed", " ".join(str(error).split()))
    if not (workspace / "dvc.yaml").exists():
        yield Check("dvc.yaml", "failed", f"not in {workspace}", "run inside a gapbridge checkout")
    yield _git(workspace)
    local = workspace / ".dvc" / "config.local"
    if local.exists() and local.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("DVC's keys", "warning", f"others can read {local}", f"chmod 600 {local}")
    stack = workspace / ".stack" / "env"
    if stack.exists() and "GAPBRIDGE_STACK" not in environment:
        yield Check(
            "stack", "warning", "a stack lies here, and this shell does not use it", f"set -a; . {stack}; set +a"
        )


def _git(workspace: Path) -> Check:
    if shutil.which("git") is None:
        return Check("git", "failed", "not installed", "install git")
    done = subprocess.run(["git", "status", "--porcelain"], cwd=workspace, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return Check("git", "warning", "no repository: runs will name no commit", "work in a clone")
    changed = len(done.stdout.splitlines())
    return Check("git", "well", f"{changed} files differ from the commit" if changed else "clean")


def _machine(workspace: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    cache = Path(environment.get("GAPBRIDGE_CACHE") or environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    places = {"workspace": workspace, "vector cache": next(path for path in (cache, *cache.parents) if path.exists())}
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        enough: Status = "well"
        if free < _AMPLE_DISK_BYTES:
            enough = "failed" if free < _LEAST_DISK_BYTES else "warning"
        remedy = "" if enough == "well" else f"free some beside {place}; `dvc gc --workspace` where no run is under way"
        yield Check(f"disk of the {name}", enough, f"{free / 1e9:.1f} GB free", remedy)
    yield _gpu()


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check("GPU", "warning", "torch is not there to ask")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("GPU", "well", ", ".join(names))
    if shutil.which("nvidia-smi") is not None:
        return Check(
            "GPU", "warning", f"torch {torch.__version__} does not see it", "compare its CUDA with the driver's"
        )
    return Check("GPU", "well", "none: stages run on the CPU")
