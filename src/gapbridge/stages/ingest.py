"""Records of every set, checked; bad rows in quarantine; sets that must not overlap proved apart."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.corpus.disjoint import EXTENT_COLUMNS, Extent, prove
from gapbridge.corpus.gather import gather, stop_if_too_bad
from gapbridge.corpus.manifest import BadRow, ManifestWriter, read_manifest, write_manifest, write_quarantine
from gapbridge.corpus.mixture import Part, choose
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.records import SETS
from gapbridge.corpus.sniff import sniff
from gapbridge.errors import InputError
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.params import Source
from gapbridge.stages.runner import StageRun
from gapbridge.world.write import write as write_world

logger = logging.getLogger(__name__)


def run(stage: StageRun) -> dict[str, Any]:
    """Write one manifest folder a set; return rows, groups and quarantined rows a set, and the proof of disjointness.

    Raises InputError when a source cannot be read, too many rows are bad, too few are good, or sets overlap.
    """
    sets: dict[str, Any] = {}
    extents: dict[str, Extent] = {}
    for name, kind in SETS.items():
        sources, folder = stage.params.sources.of(name), stage.out / name
        if sources and sources[0].format == "world":
            sets[name] = _drawn(stage, name, kind, sources[0], folder)
        else:
            sets[name] = _read(stage, name, kind, sources, folder)
        if sources and sets[name]["rows"] < stage.params.ingest.min_rows:
            places = ", ".join(source.path or "world" for source in sources)
            least = f"ingest.min_rows is {stage.params.ingest.min_rows}"
            raise InputError(f"sources.{name}: {sets[name]['rows']} good rows in {places}, {least}")
        extents[name] = Extent.of(read_manifest(folder, EXTENT_COLUMNS))
        logger.info(
            "%s: %d rows in %d groups, %d bad rows",
            *(name, sets[name]["rows"], sets[name]["groups"], sets[name]["quarantined"]),
        )
    return {"sets": sets, "disjoint": prove(extents)}


def _drawn(stage: StageRun, name: str, kind: str, source: Source, folder: Path) -> dict[str, Any]:
    if source.rows is None:
        raise AssertionError("params.Source lets no world source without rows pass")
    folder.mkdir()
    records = write_world(name, source.rows, stage.params.seed, source.split, folder, captions=source.captions)
    return write_manifest(folder, kind, records, [])


def _read(stage: StageRun, name: str, kind: str, sources: list[Source], folder: Path) -> dict[str, Any]:
    """The user's files of one set, mixed; a set of no source is empty."""
    writer, bad, ends = ManifestWriter(folder, kind), [], [0]
    for source in sources:
        mark = f"{source.path}#" if len(sources) > 1 else ""  # corpora number their rows alike
        for row in _rows(stage, name, kind, source):
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                writer.add({**row, "id": f"{mark}{row['id']}"})
        ends.append(len(writer.ids))
    _stop_if_too_bad(stage, name, len(writer.ids), bad)
    for (start, end), source in _at(ends, sources):
        if start == end and source.weight is not None:
            raise InputError(f"sources.{name}: {source.path} has a weight and no good row; mend it or leave it out")
    parts = [Part(writer.ids[slice(*place)], source.rows, source.weight) for place, source in _at(ends, sources)]
    kept = np.concatenate([np.empty(0, dtype=bool), *choose(parts, stage.params.seed)])
    summary = writer.finish(bad, kept)
    if len(sources) > 1:
        summary |= {"sources": {source.path: int(kept[slice(*place)].sum()) for place, source in _at(ends, sources)}}
    return summary


def _at(ends: list[int], sources: list[Source]) -> Iterator[tuple[tuple[int, int], Source]]:
    return zip(pairwise(ends), sources, strict=True)


def _rows(stage: StageRun, name: str, kind: str, source: Source) -> Iterator[dict[str, Any] | BadRow]:
    if source.path is None:
        raise AssertionError("params.Source lets no file source without path pass")
    root = (stage.workspace / stage.params.sources.root).resolve()
    fields = (source.images, source.captions, source.text_field, source.image_field, stage.params.seed)
    origin = Origin(name, root, source.path, *fields)
    file_format = source.format
    if file_format is None:
        file_format = sniff(origin)
        logger.info("%s: %s looks like %s", name, source.path, file_format)
    readers = {benchmark.name: benchmark.read for benchmark in BENCHMARKS.values()}
    return gather(origin, file_format, kind, stage.params.ingest.max_image_pixels, benchmarks=readers)


def _stop_if_too_bad(stage: StageRun, name: str, good: int, bad: list[BadRow]) -> None:
    quarantine = stage.workspace / "runs" / "ingest" / f"quarantine-{name}.parquet"
    quarantine.unlink(missing_ok=True)
    if bad:
        # Kept outside the out as well: when the stage stops here, this is what the user mends the data by.
        write_quarantine(quarantine, bad)
    relative = quarantine.relative_to(stage.workspace)
    stop_if_too_bad(name, good, bad, stage.params.ingest.max_bad_fraction, relative)
