"""Records of every set, checked; bad rows in quarantine; sets that must not overlap proved apart."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge import artifacts
from gapbridge.corpus.brought import sides
from gapbridge.corpus.disjoint import EXTENT_COLUMNS, Extent, prove
from gapbridge.corpus.gather import READERS, gather, stop_if_too_bad
from gapbridge.corpus.manifest import ManifestWriter, read_manifest, write_manifest
from gapbridge.corpus.mixture import Part, choose
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.quarantine import BadRow
from gapbridge.corpus.records import SETS
from gapbridge.corpus.sniff import sniff
from gapbridge.embeddings.brought import one_encoder, open_sides
from gapbridge.errors import InputError
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.params import Source
from gapbridge.stages.runner import StageRun
from gapbridge.world.write import write as write_world

logger = logging.getLogger(__name__)
_BENCHMARK_READERS = {benchmark.name: benchmark.read for benchmark in BENCHMARKS.values()}


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
    one_encoder({f"sources.{name}": told["vectors"] for name, told in sets.items() if "vectors" in told})
    return {"sets": sets, "disjoint": prove(extents)}


def _drawn(stage: StageRun, name: str, kind: str, source: Source, folder: Path) -> dict[str, Any]:
    if source.rows is None:
        raise AssertionError("params.Source lets no world source without rows pass")
    folder.mkdir()
    records = write_world(name, source.rows, stage.params.seed, source.split, folder, captions=source.captions)
    return write_manifest(folder, kind, records, [])


def _read(stage: StageRun, name: str, kind: str, sources: list[Source], folder: Path) -> dict[str, Any]:
    """The user's files of one set, mixed; a set of no source is empty."""
    writer, ends, brought = ManifestWriter(folder, kind), [0], []
    for source in sources:
        mark = f"{source.path}#" if len(sources) > 1 else ""  # corpora number their rows alike
        root = (stage.workspace / stage.params.sources.root).resolve()
        origin = origin_of(root, name, kind, source, stage.params.seed)
        for row in _rows(stage, origin, kind, source):
            if isinstance(row, BadRow):
                writer.bad.add(row)
            else:
                writer.add({**row, "id": f"{mark}{row['id']}"})
        ends.append(len(writer.ids))
        brought += list((origin.vectors or {}).values())
    _stop_if_too_bad(stage, name, writer)
    for (start, end), source in _at(ends, sources):
        if start == end and source.weight is not None:
            raise InputError(f"sources.{name}: {source.path} has a weight and no good row; mend it or leave it out")
    parts = [Part(writer.ids[slice(*place)], source.rows, source.weight) for place, source in _at(ends, sources)]
    kept = np.concatenate([np.empty(0, dtype=bool), *choose(parts, stage.params.seed)])
    vectors = {"vectors": one_encoder({f"sources.{name}: {one.path}": one.about() for one in brought})}
    summary = writer.finish(kept, vectors if brought else None)
    if len(sources) > 1:
        summary |= {"sources": {source.path: int(kept[slice(*place)].sum()) for place, source in _at(ends, sources)}}
    return summary


def _at(ends: list[int], sources: list[Source]) -> Iterator[tuple[tuple[int, int], Source]]:
    return zip(pairwise(ends), sources, strict=True)


def origin_of(root: Path, name: str, kind: str, source: Source, seed: int) -> Origin:
    """The user's files of one source of the set `name`, below `root`, with the vectors that it brings along.

    Raises InputError where these are not there, ArtifactError where they are damaged.
    """
    if source.path is None:
        raise AssertionError("params.Source lets no file source without path pass")
    vectors = None
    if source.vectors_path is not None:
        key = f"sources.{name}.{'path' if source.format == 'embeddings' else 'vectors'}"
        vectors = open_sides(root, source.vectors_path, sides(kind), key)
    fields = (source.images, source.captions, source.text_field, source.image_field, seed, vectors)
    return Origin(name, root, source.path, *fields)


def _rows(stage: StageRun, origin: Origin, kind: str, source: Source) -> Iterator[dict[str, Any] | BadRow]:
    """Good and bad rows. Raises InputError for a file that is plainly of another format than was said."""
    file_format = source.format or _told(origin)
    if file_format == "embeddings" and origin.vectors is None:
        key = f"sources.{origin.set_name}.format"
        raise InputError(f"{key}: {origin.path} holds vectors; say embeddings, and vectors:NAME in encoder.pretrained")
    good, refused = 0, None
    try:
        max_pixels = stage.params.ingest.max_image_pixels
        for row in gather(origin, file_format, kind, max_pixels, benchmarks=_BENCHMARK_READERS):
            good += not isinstance(row, BadRow)
            yield row
    except InputError as error:
        refused = error
    if not good and source.format is not None and source.format not in _BENCHMARK_READERS:
        _demand_format(origin, kind, source.format)
    if refused is not None:
        raise refused


def _told(origin: Origin) -> str:
    found = sniff(origin)
    logger.info("%s: %s looks like %s", origin.set_name, origin.path, found)
    return found


def _demand_format(origin: Origin, kind: str, named: str) -> None:
    """Of a source without a good row: raise InputError where it is plainly in another format, which would do."""
    try:
        found = sniff(origin)
    except InputError:
        return
    if found not in (named, "lines") and kind in READERS[found][1]:
        key = f"sources.{origin.set_name}.format"
        raise InputError(f"{key}: {origin.path} looks like {found}, not {named}; say {found}, or leave the format out")


def _stop_if_too_bad(stage: StageRun, name: str, writer: ManifestWriter) -> None:
    table = stage.workspace / "runs" / "ingest" / f"quarantine-{name}.parquet"
    table.unlink(missing_ok=True)
    writer.bad.close()
    if writer.bad.rows:
        # Kept outside the out as well: when the stage stops here, this is what the user mends the data by.
        artifacts.write_bytes(table, writer.bad.path.read_bytes())
    relative = table.relative_to(stage.workspace)
    stop_if_too_bad(name, len(writer.ids), writer.bad, stage.params.ingest.max_bad_fraction, relative)
