"""docs/data.md has a row for every reader, and its examples are rows that the reader takes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.gather import READERS
from gapbridge.corpus.manifest import BadRow

KINDS = {"jsonl": "text", "lines": "text", "llava": "dialogue", "unpaired": "image", "pope": "question",
         "imagefolder": "pair"}  # fmt: skip
FILES = {"imagefolder": "i/metadata.jsonl"}


def _rows() -> dict[str, list[str]]:
    page = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| `\w+` \| ", line)]
    return {row[0].strip("| `"): row for row in rows if len(row) == 5}


def test_every_reader_has_its_row() -> None:
    assert READERS.keys() - _rows().keys() == set()
    assert all(cell.strip(" |") for name, row in _rows().items() if name in READERS for cell in row)


@pytest.mark.parametrize("file_format", sorted(KINDS))
def test_an_example_is_a_good_row(
    file_format: str, tmp_path: Path, save_picture: Callable[..., Path],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
) -> None:  # fmt: skip
    for name in ("7.jpg", "1.jpg", "i/cats/7.jpg"):
        save_picture(name)
    path = tmp_path / FILES.get(file_format, "example")
    path.write_text(_rows()[file_format][2].strip("`") + "\n")
    source = "i" if file_format == "imagefolder" else "example"
    (record,), bad = read(file_format, KINDS[file_format], source, None if source == "i" else ".")
    assert record["id"] and bad == []
