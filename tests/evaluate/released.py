"""Published benchmarks in small: written in the released layout, read as `ingest` does, scored as `evaluate` does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from gapbridge.corpus.gather import gather
from gapbridge.corpus.manifest import BadRow, read_manifest, write_manifest
from gapbridge.corpus.origin import Origin
from gapbridge.evaluate.benchmarks import BENCHMARKS, rules_for
from gapbridge.evaluate.protocol import Item, grade
from gapbridge.evaluate.scores import benchmark_figures
from gapbridge.stages.evaluate import benchmark_items


def picture(number: int) -> Image.Image:
    """A small picture, another one for every number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 12, 3), dtype=np.uint8))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], pictured: Sequence[str] = ("image",)) -> None:
    """A parquet file as `datasets` writes it; the `pictured` columns are of its image type."""
    datasets.disable_progress_bars()
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    table = datasets.Dataset.from_dict(columns)
    for name in pictured:
        table = table.cast_column(name, datasets.Image())
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_picture(path: Path, number: int) -> None:
    """A picture file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)


@dataclass(frozen=True)
class Read:
    """What a benchmark's files gave: its items, sorted by id, and the reasons why rows are none."""

    items: list[Item]
    bad: list[str]


def read(name: str, root: Path, path: str, images: str | None = None) -> Read:
    """Read a benchmark as `ingest` does, through a manifest on disk."""
    readers = {name: BENCHMARKS[name].read}
    rows = list(gather(Origin("benchmark", root, path, images), name, "question", 10_000, benchmarks=readers))
    bad = [row for row in rows if isinstance(row, BadRow)]
    write_manifest(root / ".manifest", "question", [row for row in rows if not isinstance(row, BadRow)], bad)
    return Read(benchmark_items(read_manifest(root / ".manifest")), [row.reason for row in bad])


def figures(name: str, items: Sequence[Item], said: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
    """The figures of a benchmark whose items were answered so: by id, or in their order. Nothing is said without."""
    raws = [said[item.item_id] for item in items] if isinstance(said, Mapping) else list(said)
    rules = rules_for(name, items)
    assert rules.id in BENCHMARKS[name].protocols
    questions = [item.question for item in items]
    silent = grade(rules, items, questions, [""] * len(items))
    found = benchmark_figures(rules, grade(rules, items, questions, raws), silent, seed=0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found
