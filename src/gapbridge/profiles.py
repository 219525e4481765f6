"""Named sets of params: profiles/default.yaml whole, every other profile the few values that differ from it."""

from pathlib import Path
from typing import Any

import yaml

from gapbridge import artifacts
from gapbridge.errors import InputError
from gapbridge.params import check_params, read_yaml

DEFAULT = "default"
Values = dict[str, Any]


def names(workspace: Path) -> list[str]:
    """The profiles there are, sorted."""
    return sorted(path.stem for path in (workspace / "profiles").glob("*.yaml"))


def profile_text(workspace: Path, name: str) -> str:
    """The params.yaml that the profile `name` stands for.

    Raises InputError for an unknown profile, or one whose values params.py refuses.
    """
    path = _path(workspace, name)
    if name == DEFAULT:
        return path.read_text(encoding="utf-8")
    values = overlay(_values(_path(workspace, DEFAULT)), _values(path))
    check_params(values, path)
    header = f"# Written by `gapbridge profile {name}`; `gapbridge profile default` goes back.\n"
    return header + yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def overlay(base: Values, changes: Values) -> Values:
    """`base` with `changes` on top: sections merge, everything else is replaced.

    A section of `changes` that says `format:` replaces the whole section, since it names another kind of source.
    """
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and "format" not in value:
            merged[key] = overlay(below, value)
        else:
            merged[key] = value
    return merged


def apply_profile(workspace: Path, name: str, force: bool = False) -> None:
    """Write `workspace/params.yaml` for the profile `name`.

    Raises InputError when params.yaml holds edits that no profile explains, unless `force`.
    """
    text = profile_text(workspace, name)
    target = workspace / "params.yaml"
    if target.is_dir():
        raise InputError("params.yaml: is a folder; move it away")
    if not force and target.exists() and not _is_known(workspace, target):
        raise InputError("params.yaml: was edited by hand; keep a copy, or overwrite it with --force")
    artifacts.write_bytes(target, text.encode())


def _is_known(workspace: Path, target: Path) -> bool:
    """Whether params.yaml says exactly what one of the profiles says; comments and layout do not count."""
    try:
        current = read_yaml(target)
    except InputError:
        return False
    return any(yaml.safe_load(profile_text(workspace, name)) == current for name in names(workspace))


def _path(workspace: Path, name: str) -> Path:
    if name not in names(workspace):
        known = ", ".join(names(workspace)) or "none: run inside a gapbridge checkout"
        raise InputError(f"profile {name}: not in profiles/ (there are {known})")
    return workspace / "profiles" / f"{name}.yaml"


def _values(path: Path) -> Values:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold the values that differ from profiles/default.yaml")
    return values
