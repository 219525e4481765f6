"""The numbered record of who became champion and why: versions of a registered model of its own, `NAME-decisions`.

MLflow gives aliases no compare-and-set, but numbers its versions one by one. Whoever wants to move the alias reads the
last record, claims the next number, and goes on only when that number is the one after what was read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gapbridge.errors import InputError
from gapbridge.registry import CHAMPION, DECISIONS_OF, Registry, Version

State = Literal["pending", "promoted", "refused", "rolled back", "lost", "abandoned"]
PENDING_SECONDS = 900
"""A claim older than that was left by a process that died."""


@dataclass(frozen=True)
class Record:
    """One decision; versions by number, None where there was no champion."""

    number: int
    run_id: str
    action: Literal["promote", "rollback"]
    state: State
    candidate: int
    before: int | None
    after: int | None
    reason: str
    claimed_seconds: float
    """Since the epoch."""


class Ledger:
    """The decisions about one registered model."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry, self.name, self._ledger = registry, name, f"{name}-decisions"

    def records(self) -> list[Record]:
        """Every decision, the first one first."""
        return sorted(map(_record, self._registry.versions(self._ledger)), key=lambda one: one.number)

    def claim(self, action: Literal["promote", "rollback"], candidate: Version) -> Record:
        """Take the next number for a decision about `candidate`; nobody else may decide until it is settled.

        Raises InputError when another decision is under way, or took the number first.
        """
        records = self.records()
        last = records[-1].number if records else 0
        for pending in (one for one in records if one.state == "pending"):
            if time.time() - pending.claimed_seconds < PENDING_SECONDS:
                raise InputError(_under_way(self.name, pending.number))
            self._tag(pending.number, state="abandoned")
        champion = self._registry.aliased(self.name)
        tags = {
            "action": action, "state": "pending", "candidate": str(candidate.number), "reason": "",
            "before": str(champion.number) if champion else "", "after": "", "claimed_seconds": str(time.time()),
        }  # fmt: skip
        claimed = self._create(action, tags)
        if claimed.number != last + 1:
            self.settle(claimed, "lost", claimed.before, "another decision took the number before")
            raise InputError(_under_way(self.name, claimed.number - 1))
        return claimed

    def move(self, claimed: Record, to: int, reason: str) -> None:
        """Set the alias and settle the record.

        Raises InputError when the champion is no longer the one that was there at the claim, or somebody took the
        claim for that of a dead process.
        """
        champion = self._registry.aliased(self.name)
        now = champion.number if champion else None
        mine = next(one for one in self.records() if one.number == claimed.number)
        if now != claimed.before or mine.state != "pending":
            self.settle(claimed, "lost", now, "the champion changed meanwhile")
            raise InputError(f"{self.name}: the champion changed meanwhile (it is version {now}); decide again")
        self._registry.client.set_registered_model_alias(self.name, CHAMPION, str(to))
        self.settle(claimed, "promoted" if claimed.action == "promote" else "rolled back", to, reason)

    def settle(self, claimed: Record, state: State, after: int | None, reason: str) -> None:
        """Write down how the decision ended."""
        self._tag(claimed.number, state=state, after="" if after is None else str(after), reason=reason)
        self._registry.client.set_terminated(claimed.run_id)

    def attach(self, claimed: Record, files: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Keep texts by file name, and tags, with the record's run."""
        for name, text in files.items():
            self._registry.client.log_text(claimed.run_id, text, name)
        for key, value in tags.items():
            self._registry.client.set_tag(claimed.run_id, key, value)

    def _create(self, action: str, tags: dict[str, str]) -> Record:
        client = self._registry.client
        if not client.search_registered_models(f"name = '{self._ledger}'"):
            self._create_ledger()
        run_tags = {"stage": action, "model": self.name, "candidate": tags["candidate"]}
        run = client.create_run(self._registry.experiment_id, run_name=action, tags=run_tags)
        version = client.create_model_version(self._ledger, run.info.artifact_uri, run.info.run_id, tags=tags)
        return _record(Version(self._ledger, int(version.version), run.info.run_id, version.source, tags))

    def _create_ledger(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._registry.client.create_registered_model(
                self._ledger,
                tags={DECISIONS_OF: self.name},
                description=f"Decisions about {self.name}",
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was as quick
                raise

    def _tag(self, number: int, **tags: str) -> None:
        for key, value in tags.items():
            self._registry.client.set_model_version_tag(self._ledger, str(number), key, value)


def champion_before(records: list[Record]) -> int | None:
    """The version that was champion before the present one, going back over rollbacks; None when there was none."""
    line: list[int] = []
    for record in records:
        if record.state == "promoted" and record.after is not None:
            if not line and record.before is not None:
                line.append(record.before)  # an alias that was set by hand before the first record
            line.append(record.after)
        elif record.state == "rolled back" and line:
            line.pop()
    return line[-2] if len(line) > 1 else None


def _record(version: Version) -> Record:
    tags: dict[str, Any] = version.tags
    before, after = (int(tags[key]) if tags.get(key) else None for key in ("before", "after"))
    return Record(
        version.number, version.run_id, tags["action"], tags["state"], int(tags["candidate"]), before, after,
        tags["reason"], float(tags["claimed_seconds"]),
    )  # fmt: skip


def _under_way(name: str, number: int) -> str:
    return f"{name}: decision {number} is under way; wait for it to end and try again"
