"""Records of every set, checked; bad rows in quarantine; sets that must not overlap proved apart."""

import logging
from pathlib import Path
from typing import Any

from gapbridge.corpus.disjoint import Extent, prove
from gapbridge.corpus.gather import gather, stop_if_too_bad
from gapbridge.corpus.manifest import BadRow, read_manifest, write_manifest, write_quarantine
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.records import SETS
from gapbridge.errors import InputError
from gapbridge.params import IngestParams, Source
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
        source: Source | None = getattr(stage.params.sources, name)
        folder = stage.out / name
        records, bad = ([], []) if source is None else _records(stage, name, kind, source, folder)
        sets[name] = write_manifest(folder, kind, records, bad)
        extents[name] = Extent.of(read_manifest(folder))
        logger.info("%s: %d rows in %d groups, %d bad rows", name, len(records), sets[name]["groups"], len(bad))
    return {"sets": sets, "disjoint": prove(extents)}


def _records(
    stage: StageRun, name: str, kind: str, source: Source, folder: Path
) -> tuple[list[dict[str, Any]], list[BadRow]]:
    settings = stage.params.ingest
    if source.format == "world":
        if source.rows is None:
            raise AssertionError("params.Source lets no world source without rows pass")
        folder.mkdir()
        records = write_world(name, source.rows, stage.params.seed, source.split, folder, captions=source.captions)
        bad: list[BadRow] = []
    else:
        records, bad = _read(stage, name, kind, source, settings)
    if len(records) < settings.min_rows:
        place = source.path or "world"
        raise InputError(f"sources.{name}: {len(records)} good rows in {place}, ingest.min_rows is {settings.min_rows}")
    return records, bad


def _read(
    stage: StageRun, name: str, kind: str, source: Source, settings: IngestParams
) -> tuple[list[dict[str, Any]], list[BadRow]]:
    if source.path is None:
        raise AssertionError("params.Source lets no file source without path pass")
    root = (stage.workspace / stage.params.sources.root).resolve()
    origin = Origin(name, root, source.path, source.images, source.captions)
    records, bad = gather(origin, source.format, kind, settings.max_image_pixels)
    quarantine = stage.workspace / "runs" / "ingest" / f"quarantine-{name}.parquet"
    quarantine.unlink(missing_ok=True)
    if bad:
        # Kept outside the out as well: when the stage stops here, this is what the user mends the data by.
        write_quarantine(quarantine, bad)
    relative = quarantine.relative_to(stage.workspace)
    stop_if_too_bad(name, len(records), bad, settings.max_bad_fraction, relative)
    return records[: source.rows], bad
