"""Bad rows go to disk while they come: many take no more memory than few, and the table is the same."""

from pathlib import Path

import polars
import pytest

from gapbridge.corpus import quarantine
from gapbridge.corpus.quarantine import BadRow, Quarantine, write_quarantine


def test_rows_in_pieces_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [BadRow("s", f"s line {n}", None if n % 2 else f"{n}", f"r{n % 3}") for n in range(11)]
    monkeypatch.setattr(quarantine, "_PIECE_ROWS", 4)
    found = Quarantine(tmp_path / "deep/q.parquet")
    for row in rows:
        found.add(row)
        assert len(found._held) < 4
    found.close()
    table = polars.read_parquet(tmp_path / "deep/q.parquet")
    assert table.columns == ["source", "where", "id", "reason"]
    assert table.rows() == [(row.source, row.place, row.id, row.reason) for row in rows]
    assert (found.rows, found.reasons, found.first["r2"]) == (11, {"r0": 4, "r1": 4, "r2": 3}, "s line 2")


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    assert write_quarantine(tmp_path / "q.parquet", []).rows == 0
    assert polars.read_parquet(tmp_path / "q.parquet").height == 0
