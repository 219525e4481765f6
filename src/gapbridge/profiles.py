"""Named sets of params: profiles/default.yaml whole, every other profile the few values that differ from it.

A profile may begin with `extends: NAME` and then says only what differs from that one.
"""

from pathlib import Path
from typing import Any

import yaml

from gapbridge import artifacts
from gapbridge.errors import InputError
from gapbridge.params import Params, check_params, read_yaml

DEFAULT = "default"
_EXTENDS = "extends"
_NAMES_A_SOURCE = {"format", "path"}
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
    values = _resolved(workspace, name)
    check_params(values, path)
    header = f"# Written by `gapbridge profile {name}`; `gapbridge profile default` goes back.\n"
    return header + yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def profile_params(workspace: Path, name: str) -> Params:
    """The whole params that the profile `name` stands for; raises as `profile_text` does."""
    return check_params(_resolved(workspace, name), _path(workspace, name))


def differences(workspace: Path, name: str) -> list[tuple[str, Any, Any]]:
    """What writing the profile `name` would change in params.yaml: key, value there, value of the profile.

    Where params.yaml is missing it is compared with the default. A source is one value, since its keys belong together.
    """
    target = workspace / "params.yaml"
    there = read_yaml(target) if target.exists() else _resolved(workspace, DEFAULT)
    if not isinstance(there, dict):
        raise InputError(f"{target}: must hold one section a stage; write it with `gapbridge profile default`")
    before, after = _flat(there), _flat(_resolved(workspace, name))
    keys = [*after, *(key for key in before if key not in after)]
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _flat(values: Values, prefix: str = "") -> Values:
    flat: Values = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix != "sources.":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _resolved(workspace: Path, name: str, above: tuple[str, ...] = ()) -> Values:
    """All values of a profile: those of the one that it extends, or of the default, with its own on top."""
    if name in above:
        raise InputError(f"profiles/{name}.yaml: extends itself, by way of {', '.join(above)}; mend `extends`")
    values = dict(_values(_path(workspace, name)))
    if name == DEFAULT:
        return values
    base = values.pop(_EXTENDS, DEFAULT)
    if not isinstance(base, str):
        raise InputError(f"profiles/{name}.yaml: extends must be the name of a profile, found {base!r}")
    return overlay(_resolved(workspace, base, (*above, name)), values)


def overlay(base: Values, changes: Values) -> Values:
    """`base` with `changes` on top: sections merge, everything else is replaced.

    A section of `changes` that says `format:` or `path:` replaces the whole section, since it names another source.
    """
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not _NAMES_A_SOURCE & value.keys():
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
