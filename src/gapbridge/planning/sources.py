"""What a run will read: files, their size, how many rows, and what is not there. Only a first part is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gapbridge.corpus.gather import READERS
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, Reader
from gapbridge.corpus.records import SETS
from gapbridge.corpus.sniff import sniff
from gapbridge.errors import GapbridgeError, InputError
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.params import Params, Source
from gapbridge.planning.counting import Count, count_rows
from gapbridge.stages.ingest import origin_of
from gapbridge.stages.sources import source_files

SAMPLE_ROWS = 400
"""So many rows of a source are read, for the length of its texts and to see whether its pictures are there."""


@dataclass(frozen=True)
class SourcePlan:
    """One source of a set. `path` is None for the world, which is drawn."""

    set_name: str
    path: str | None
    file_format: str | None
    files: int
    size_bytes: int
    rows: Count | None
    """All that it has, good or bad."""
    used_rows: int | None
    """What `rows` and `weight` leave of them."""
    sample: Sequence[Mapping[str, Any]]
    """The first good records."""
    missing: Sequence[str]
    width: int | None
    """Of the vectors that it brings along."""
    problems: Sequence[str]
    """What would stop `ingest`, each one line."""
    remarks: Sequence[str]
    """Rows that `ingest` would leave out, few enough to go on."""


def plan_sources(workspace: Path, params: Params) -> dict[str, list[SourcePlan]]:
    """Every set with its sources; a set of none is an empty list."""
    plans = {}
    for name in SETS:
        sources = params.sources.of(name)
        looked_at = [_look(workspace, params, name, source) for source in sources]
        plans[name] = _weighed(looked_at, sources)
    return plans


def used_rows(plans: Sequence[SourcePlan]) -> int | None:
    """The rows of a whole set; None where one of its sources could not be counted."""
    counts = [plan.used_rows for plan in plans]
    return None if None in counts else sum(count for count in counts if count is not None)


def _look(workspace: Path, params: Params, name: str, source: Source) -> SourcePlan:
    if source.format == "world":
        count = Count(source.rows or 0, exact=True)
        return SourcePlan(name, None, "world", 0, 0, count, count.rows, (), (), None, (), ())
    root = (workspace / params.sources.root).resolve()
    named = [path for path in (source.path, source.images, source.vectors) if path is not None]
    missing = [f"{params.sources.root}/{path}" for path in named if not (root / path).exists()]
    nothing = SourcePlan(name, source.path, source.format, 0, 0, None, None, (), missing, None, (), ())
    if missing:
        return nothing
    try:
        files = list(source_files(root, name, source))
        sized = replace(nothing, files=len(files), size_bytes=sum(file.stat().st_size for file in files))
    except (InputError, OSError) as error:
        return replace(nothing, problems=(str(error),))
    try:
        origin = origin_of(root, name, SETS[name], source, params.seed)
        file_format = source.format or sniff(origin)
        return _read_first(replace(sized, file_format=file_format), origin, source, params.ingest.max_bad_fraction)
    except GapbridgeError as error:
        return replace(sized, problems=(str(error),))


def _read_first(plan: SourcePlan, origin: Origin, source: Source, max_bad_fraction: float) -> SourcePlan:
    kind = SETS[plan.set_name]
    reader = _reader(str(plan.file_format), kind, plan.set_name)
    rows = list(islice(reader(origin, kind), SAMPLE_ROWS))
    drafts = [row for row in rows if isinstance(row, Draft)]
    count = Count(len(rows), exact=True) if len(rows) < SAMPLE_ROWS else count_rows(origin, str(plan.file_format))
    vectors = next(iter((origin.vectors or {}).values()), None)
    used = None if count is None else min(count.rows, source.rows or count.rows)
    bad, lost = _bad_rows(rows), _lost_pictures(origin, () if vectors else drafts)
    faults = [line for line in (bad.line, lost.line) if line]
    stops = bad.number + lost.number > max_bad_fraction * len(rows)
    return replace(
        plan,
        rows=count,
        used_rows=used,
        sample=[draft.record for draft in drafts],
        width=None if vectors is None else vectors.width,
        problems=faults if stops else (),
        remarks=() if stops else faults,
    )


def _reader(file_format: str, kind: str, set_name: str) -> Reader:
    readers = READERS | {one.name: (one.read, frozenset({"question"})) for one in BENCHMARKS.values()}
    reader, kinds = readers[file_format]
    if kind not in kinds:
        raise InputError(f"sources.{set_name}.format: {file_format} gives no {kind} records; name another format")
    return reader


class _Fault(NamedTuple):
    """How many rows have it, and the first of them in words; empty where none has."""

    number: int
    line: str


def _bad_rows(rows: Sequence[Draft | BadRow]) -> _Fault:
    bad = [row for row in rows if isinstance(row, BadRow)]
    if not bad:
        return _Fault(0, "")
    return _Fault(len(bad), f"{bad[0].place}: {bad[0].reason} ({len(bad)} bad rows among the first {len(rows)})")


def _lost_pictures(origin: Origin, drafts: Sequence[Draft]) -> _Fault:
    """Pictures that are files of their own and not there."""
    named = [draft.picture for draft in drafts if draft.picture and draft.content is None]
    files = [name.removeprefix("root:") for name in named if name.startswith("root:")]
    lost = [name for name in files if not (origin.root / name).is_file()]
    if not lost:
        return _Fault(0, "")
    return _Fault(len(lost), f"{origin.path}: {lost[0]} is missing ({len(lost)} pictures among the first {len(files)})")


def _weighed(plans: list[SourcePlan], sources: Sequence[Source]) -> list[SourcePlan]:
    """What weights leave: shares of the scarcest, as `corpus.mixture` takes them."""
    limits = [
        plan.used_rows / source.weight
        for plan, source in zip(plans, sources, strict=True)
        if source.weight is not None and plan.used_rows is not None
    ]
    return [
        replace(plan, used_rows=min(plan.used_rows, round(min(limits) * source.weight)))
        if source.weight is not None and plan.used_rows is not None
        else plan
        for plan, source in zip(plans, sources, strict=True)
    ]
