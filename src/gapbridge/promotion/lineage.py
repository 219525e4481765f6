"""From a registered version back to everything it was made from, and whether this workspace could make it again."""

import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from gapbridge import artifacts
from gapbridge.promotion.evidence import Evidence, locked_stages
from gapbridge.promotion.ledger import Ledger
from gapbridge.registry import EVIDENCE, PARTS, Registry, Version
from gapbridge.tracking import flatten, git_tags

_ALIGNMENT = ("gap_before", "gap_after", "gap_heldout", "sampling_floor", "scale", "n_texts", "n_images", "width")


@dataclass(frozen=True)
class Lineage:
    """What one version was made from."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    tags: dict[str, str]
    """Digests of model, package, dvc.lock and environment; commit; whether the code differed from it."""
    params: dict[str, Any]
    sets: dict[str, Any]
    """Rows, groups and quarantined rows of every set, and the digest of its records."""
    alignment: dict[str, Any]
    scores: dict[str, Any]
    stages: dict[str, str]
    """The digest of each stage's outs, by path."""
    decisions: tuple[dict[str, Any], ...]
    obstacles: tuple[str, ...]
    """What stands between this workspace and the same bytes; none: `dvc repro` makes them."""

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self) | {"rebuildable": not self.obstacles}

    def text(self) -> str:
        """Everything but the single params, for people."""
        blocks = {
            f"{self.name} version {self.version}": {"aliases": ", ".join(self.aliases) or "none", "run": self.run_id},
            "made by": self.tags,
            "data": {name: _counts(one) for name, one in self.sets.items()},
            "alignment": self.alignment,
            "scores": self.scores,
            "outs": self.stages,
            "decisions": {str(one["number"]): f"{one['state']}: {one['reason']}" for one in self.decisions},
        }
        lines = [line for title, entries in blocks.items() for line in (title, *_entries(entries), "")]
        if not self.obstacles:
            return "\n".join([*lines, "this workspace can make it again, byte for byte: `dvc repro`"])
        return "\n".join([*lines, "this workspace cannot make it again as it is:", *(f"  {o}" for o in self.obstacles)])


def lineage(workspace: Path, reference: str) -> Lineage:
    """What the version that `NAME@ALIAS`, `NAME/NUMBER` or `NAME` means was made from.

    Raises InputError when there is none or the store does not answer, ArtifactError when its files are damaged.
    """
    registry = Registry(workspace)
    version = registry.resolve(reference)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: registry.part(version, name, Path(folder)) for name in PARTS}
        aliases = registry.client.get_registered_model(version.name).aliases
        decisions = [asdict(one) for one in Ledger(registry, version.name).records() if one.candidate == version.number]
        metrics = Evidence.read(evidence).metrics if (evidence := files[EVIDENCE]) else {}
        stages = locked_stages(files["dvc.lock"]) if files["dvc.lock"] else {}
        return Lineage(
            name=version.name,
            version=version.number,
            aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == version.number)),
            run_id=version.run_id,
            tags={key: value for key, value in sorted(version.tags.items()) if not key.startswith("decision.")},
            params=flatten(yaml.safe_load(files["params.yaml"].read_text())) if files["params.yaml"] else {},
            sets=metrics.get("ingest", {}).get("sets", {}),
            alignment={key: metrics["realign"][key] for key in _ALIGNMENT if key in metrics.get("realign", {})},
            scores=_scores(metrics.get("evaluate", {})),
            stages={out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])},
            decisions=tuple(decisions),
            obstacles=tuple(_obstacles(workspace, version, files)),
        )


def _obstacles(workspace: Path, version: Version, files: dict[str, Path | None]) -> list[str]:
    found = _code_obstacles(workspace, version)
    for name in ("params.yaml", "dvc.lock"):
        packaged, here = files[name], workspace / name
        if packaged is None:
            found.append(f"{name}: the package has none")
        elif name == "params.yaml" and not (here.is_file() and here.read_bytes() == packaged.read_bytes()):
            found.append(f"{name}: differs; take the package's")
    lock = workspace / "requirements.lock"
    recorded = version.tags.get("environment.lock")
    if recorded is None or not lock.is_file() or artifacts.file_digest(lock) != recorded:
        found.append("requirements.lock: another one, or none was recorded; install the one of that commit")
    return [*found, *_source_obstacles(workspace, files["dvc.lock"])]


def _code_obstacles(workspace: Path, version: Version) -> list[str]:
    commit = version.tags.get("git.commit")
    if commit is None:
        return ["code: the commit was not recorded"]
    if version.tags.get("git.dirty") != "false":
        return [f"code: it differed from commit {commit[:12]} in ways that were not committed"]
    here = git_tags(workspace)
    if here.get("git.commit") != commit:
        known = _has_commit(workspace, commit)
        return [f"code: {'check out' if known else 'this clone lacks'} commit {commit[:12]}"]
    return ["code: this checkout has changes that are not committed"] if here["git.dirty"] != "false" else []


def _source_obstacles(workspace: Path, lock: Path | None) -> list[str]:
    """Whether the outside data is the same, as the stage `sources` last saw it."""
    if lock is None:
        return []
    outs = locked_stages(lock).get("sources", {}).get("outs", [])
    here = workspace / "artifacts" / "sources"
    for out in outs:
        if not here.exists():
            return ["data: not looked at yet; run `gapbridge sources`"]
        if artifacts.dvc_digest(here) != out["md5"]:
            return ["data: the source files are not those that it was made from"]
    return []


def _has_commit(workspace: Path, commit: str) -> bool:
    done = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=workspace, capture_output=True, check=False
    )
    return done.returncode == 0


def _scores(evaluate: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{one['score']:.4f} ({one['protocol']})" for name, one in evaluate.get("benchmarks", {}).items()}


def _counts(figures: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items() if not isinstance(value, dict))


def _entries(entries: dict[str, Any]) -> list[str]:
    width = max(map(len, entries), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in entries.items()] or ["  none"]
