"""One folder a set: `manifest.parquet` (good records), `quarantine.parquet` (bad rows), `ingest.json` (figures)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars
from polars import DataFrame

from gapbridge import artifacts
from gapbridge.corpus.records import SCHEMAS, checked, table
from gapbridge.errors import ArtifactError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BadRow:
    """A row that became no record: its `place` (`captions.jsonl line 1204`), its id if it has one, and why."""

    source: str
    place: str
    id: str | None
    reason: str


def write_manifest(folder: Path, kind: str, records: list[dict[str, Any]], bad: Sequence[BadRow]) -> dict[str, Any]:
    """Write the three files of one set into `folder` and return the content of `ingest.json`.

    Raises ArtifactError when the records do not fit the schema of `kind`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = table(kind, records)
    frame.write_parquet(folder / "manifest.parquet")
    write_quarantine(folder / "quarantine.parquet", bad)
    summary = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "rows": frame.height,
        "groups": frame["group_id"].n_unique(),
        "quarantined": len(bad),
        "reasons": dict(Counter(row.reason for row in bad)),
        "digest": artifacts.file_digest(folder / "manifest.parquet"),
    }
    artifacts.write_json(folder / "ingest.json", summary)
    return summary


def write_quarantine(path: Path, bad: Sequence[BadRow]) -> None:
    """Write `bad` as a parquet table with the columns source, where, id, reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = {
        "source": polars.String,
        "place": polars.String,
        "id": polars.String,
        "reason": polars.String,
    }
    rows = [asdict(row) for row in bad]
    DataFrame(rows, schema=schema, orient="row").rename({"place": "where"}).write_parquet(path)


def read_manifest(folder: Path) -> DataFrame:
    """The records of one set, sorted by id and checked against the schema of their kind.

    Raises ArtifactError when the folder is incomplete, of another format version, or damaged.
    """
    summary = artifacts.read_json(folder / "ingest.json")
    if summary.get("format_version") != FORMAT_VERSION or summary.get("kind") not in SCHEMAS:
        raise ArtifactError(f"{folder}/ingest.json: not of format {FORMAT_VERSION}; run `gapbridge ingest` again")
    path = folder / "manifest.parquet"
    try:
        frame = polars.read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: not a table ({_one_line(error)}); run `gapbridge ingest` again") from error
    if frame.height != summary["rows"]:
        raise ArtifactError(f"{path}: {frame.height} rows, ingest.json says {summary['rows']}; run `gapbridge ingest`")
    return checked(summary["kind"], frame, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
