"""Promote and roll back: the gates' verdict, one step of the alias, and a record of why."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import InputError
from gapbridge.promotion import gates as gate_rules
from gapbridge.promotion.compare import Comparison, compare
from gapbridge.promotion.evidence import Evidence, data_problem, lineage_problem
from gapbridge.promotion.gates import Gate, Thresholds
from gapbridge.promotion.ledger import Ledger, Record, champion_before
from gapbridge.registry import CHAMPION, EVIDENCE, Registry, Version

Probe = Callable[[Path], str | None]
"""Asks the packaged model in a folder what was asked when it was registered; says what differs."""
_JSON, _MARKDOWN = "decision.json", "decision.md"


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, by which figures; `number` is that of the record, None for a dry run."""

    name: str
    action: str
    candidate: int
    champion: int | None
    verdict: str
    gates: tuple[Gate, ...] = ()
    comparison: Comparison | None = None
    number: int | None = None

    @property
    def promoted(self) -> bool:
        """Whether the candidate is the champion now, or would be if this were no dry run."""
        return gate_rules.passed(self.gates)

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs; `markdown` among it."""
        return asdict(self) | {"promoted": self.promoted, "markdown": self.markdown()}

    def markdown(self) -> str:
        """One page for people."""
        head = f"# {self.name}: {self.verdict}\n\n"
        before = f"version {self.champion}" if self.champion else "none"
        facts = f"{self.action} of version {self.candidate}; champion before: {before}"
        facts += f"; decision {self.number}" if self.number else "; nothing was changed"
        rows = [f"| {gate.name} | {'pass' if gate.passed else '**fail**'} | {gate.figure} | {gate.limit} |"
                for gate in self.gates]  # fmt: skip
        table = ["| gate | verdict | figure | limit |", "| --- | --- | --- | --- |", *rows] if rows else []
        return "\n".join([head + facts + ".", "", *table, *self._differences()]).rstrip() + "\n"

    def _differences(self) -> list[str]:
        if self.comparison is None or self.comparison.average is None:
            return []
        rows = [
            f"| {one.benchmark} | {one.items} | {one.candidate:.4f} | {one.champion:.4f} | {one.difference:+.4f} |"
            f" {one.interval[0]:+.4f} to {one.interval[1]:+.4f} |"
            for one in (*self.comparison.benchmarks, self.comparison.average)
        ]
        head = ["", "| benchmark | items | candidate | champion | difference | 95 % interval |"]
        return [*head, "| --- | --- | --- | --- | --- | --- |", *rows]


@dataclass(frozen=True)
class Rules:
    """By what a candidate is judged."""

    thresholds: Thresholds
    require_clean: bool
    seed: int
    probe: Probe


def promote(workspace: Path, reference: str, rules: Rules, dry_run: bool = False) -> Decision:
    """Judge a version, and make it the champion when every gate holds; either way the record says why.

    The champion itself is left as it is, without a record. Raises InputError when another decision is under way, the
    champion changed meanwhile or the store does not answer; ArtifactError when the package is damaged.
    """
    registry = Registry(workspace)
    candidate = registry.resolve(reference)
    champion = registry.aliased(candidate.name)
    if champion and champion.number == candidate.number:
        verdict = f"version {candidate.number} is the {CHAMPION} already"
        return Decision(candidate.name, "promote", candidate.number, champion.number, verdict)
    gates, comparison = _judge(registry, candidate, champion, rules)
    held = gate_rules.passed(gates)
    verdict = _verdict(candidate, gates, dry_run)
    before = champion.number if champion else None
    decision = Decision(candidate.name, "promote", candidate.number, before, verdict, tuple(gates), comparison)
    if dry_run:
        return decision
    ledger = Ledger(registry, candidate.name)
    claimed = ledger.claim("promote", candidate)
    if claimed.before != before:
        ledger.settle(claimed, "lost", claimed.before, "the champion changed meanwhile")
        raise InputError(f"{candidate.name}: version {claimed.before} became champion meanwhile; decide again")
    return _settle(registry, ledger, claimed, decision, candidate.number if held else None)


def rollback(workspace: Path, name: str, reason: str, dry_run: bool = False) -> Decision:
    """Make the version that was champion before champion again.

    Raises InputError when there is none before it, or the store does not answer.
    """
    registry = Registry(workspace)
    ledger, champion = Ledger(registry, name), registry.resolve(f"{name}@{CHAMPION}")
    before = champion_before(ledger.records(), champion.number)
    if before is None:
        raise InputError(f"{name}: there is no {CHAMPION} before the present one to go back to")
    candidate = registry.resolve(f"{name}/{before}")
    verdict = f"version {before} {'would be' if dry_run else 'is'} {CHAMPION} again: {reason}"
    decision = Decision(name, "rollback", before, champion.number, verdict)
    if dry_run:
        return decision
    claimed = ledger.claim("rollback", candidate)
    return _settle(registry, ledger, claimed, decision, before)


def _settle(registry: Registry, ledger: Ledger, claimed: Record, decision: Decision, to: int | None) -> Decision:
    """Write the record and, when there is a version to move to, move the alias: in this order, so that it is known."""
    decided = replace(decision, number=claimed.number)
    files = {_MARKDOWN: decided.markdown(), _JSON: artifacts.json_bytes(decided.as_json()).decode()}
    ledger.attach(claimed, files, {"verdict": decided.verdict})
    if to is None:
        ledger.settle(claimed, "refused", claimed.before, decided.verdict)
    else:
        ledger.move(claimed, to, decided.verdict)
        registry.client.set_model_version_tag(decided.name, str(to), f"decision.{claimed.number}", decided.verdict)
    return decided


def _judge(
    registry: Registry, candidate: Version, champion: Version | None, rules: Rules
) -> tuple[list[Gate], Comparison | None]:
    with registry.package(candidate) as package, tempfile.TemporaryDirectory() as folder:
        evidence = Evidence.read(package / EVIDENCE)
        comparison = None
        if champion is not None:
            other = Evidence.read(registry.part(champion, EVIDENCE, Path(folder)) or Path(folder))
            comparison = compare(evidence.predictions, other.predictions, rules.seed)
        problems = {
            "lineage": lineage_problem(package, candidate, rules.require_clean),
            "data": data_problem(evidence),
            "probe": rules.probe(package),
        }
    limits = rules.thresholds
    gates = [
        *gate_rules.evidence_gates(problems),
        *gate_rules.score_gates(evidence.metrics.get("evaluate", {}), limits),
        gate_rules.gap_gate(evidence.metrics.get("realign", {}), limits),
        *gate_rules.comparison_gates(comparison, limits),
    ]
    return gates, comparison


def _verdict(candidate: Version, gates: Sequence[Gate], dry_run: bool) -> str:
    fallen = [gate.name for gate in gates if not gate.passed]
    if fallen:
        return f"version {candidate.number} {'would be' if dry_run else 'was'} refused by {', '.join(fallen)}"
    return f"version {candidate.number} {'would be' if dry_run else 'is'} {CHAMPION}: all {len(gates)} gates hold"
