"""Manifests are written and read by their schemas."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.corpus import manifest
from gapbridge.corpus.manifest import BadRow, read_manifest, write_manifest
from gapbridge.corpus.records import SCHEMAS, SETS, columns, table
from gapbridge.errors import ArtifactError

TEXTS = [
    {"id": "b", "group_id": "g", "source": "s", "text": "two"},
    {"id": "a", "group_id": "g", "source": "s", "text": "one"},
]


def test_records_come_back_sorted_and_the_same_bytes_come_out(tmp_path: Path) -> None:
    bad = [BadRow("s", "s line 3", None, "x")]
    summary = write_manifest(tmp_path / "1", "text", TEXTS, bad)
    assert write_manifest(tmp_path / "2", "text", TEXTS[::-1], bad) == summary
    assert read_manifest(tmp_path / "1")["id"].to_list() == ["a", "b"]
    for name in ("manifest.parquet", "quarantine.parquet", "ingest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert (summary["rows"], summary["groups"], summary["quarantined"], summary["reasons"]) == (2, 1, 1, {"x": 1})
    quarantine = polars.read_parquet(tmp_path / "1" / "quarantine.parquet").to_dicts()
    assert quarantine == [{"source": "s", "where": "s line 3", "id": None, "reason": "x"}]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_set_without_rows_keeps_its_columns(tmp_path: Path, kind: str) -> None:
    write_manifest(tmp_path, kind, [], [])
    frame = read_manifest(tmp_path)
    assert (frame.height, frame.columns) == (0, list(columns(kind)))


def test_every_set_has_a_kind_with_a_schema() -> None:
    assert set(SETS.values()) == set(SCHEMAS)


@pytest.mark.parametrize(
    ("change", "column"),
    [({"text": ""}, "text"), ({"text": None}, "text"), ({"id": "b"}, "id"), ({"group_id": ""}, "group_id")],
)
def test_records_that_break_the_schema_are_refused(change: dict[str, Any], column: str) -> None:
    with pytest.raises(ArtifactError, match=f"kind text .column {column}"):
        table("text", [TEXTS[0], {**TEXTS[1], **change}])


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    assert table("text", [{**TEXTS[0], "text": text}])["text"].to_list() == [text]


def test_turns_survive(tmp_path: Path) -> None:
    turns = [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]
    record = {"id": "1", "group_id": "g", "source": "s", "context": "c", "turns": turns}
    write_manifest(tmp_path, "language", [record], [])
    assert read_manifest(tmp_path).to_dicts() == [{**record, "text": None}]


def test_a_damaged_or_foreign_manifest_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, "text", TEXTS, [])
    whole = json.loads((tmp_path / "ingest.json").read_text())
    (tmp_path / "ingest.json").write_text(json.dumps({**whole, "format_version": 99}))
    with pytest.raises(ArtifactError, match="not of format 1"):
        read_manifest(tmp_path)
    (tmp_path / "ingest.json").write_text(json.dumps({**whole, "rows": 3}))
    with pytest.raises(ArtifactError, match=r"2 rows, ingest.json says 3"):
        read_manifest(tmp_path)
    (tmp_path / "ingest.json").write_text(json.dumps(whole))
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="not a table"):
        read_manifest(tmp_path)


def test_a_set_in_pieces_is_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{**TEXTS[0], "id": f"{(7 * number) % 23:02d}", "group_id": f"g{number % 5}"} for number in range(23)]
    whole = write_manifest(tmp_path / "whole", "text", records, [])
    monkeypatch.setattr(manifest, "PIECE_ROWS", 4)
    pieces = write_manifest(tmp_path / "pieces", "text", records, [])
    assert {**pieces, "digest": None} == {**whole, "digest": None}
    assert read_manifest(tmp_path / "pieces").equals(read_manifest(tmp_path / "whole"))
    assert sorted(path.name for path in (tmp_path / "pieces").iterdir()) == [
        "ingest.json",
        "manifest.parquet",
        "quarantine.parquet",
    ]
    writer = manifest.ManifestWriter(tmp_path / "kept", "text")
    for record in records:
        writer.add(record)
    kept = np.arange(23) % 3 == 0
    assert writer.finish(kept)["rows"] == 8
    assert read_manifest(tmp_path / "kept")["id"].to_list() == sorted(
        record["id"] for record, stays in zip(records, kept, strict=True) if stays
    )
