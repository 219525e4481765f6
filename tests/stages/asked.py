"""Everything that `evaluate` reads, made in a second: questions, pictures' vectors, a tiny model of random weights."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.corpus.manifest import write_manifest
from gapbridge.embeddings.shards import write_shards

from ..evaluate.tiny import QUESTIONS, save_model, unit_vectors

COUNT = 12


def write_asked(workspace: Path) -> None:
    """Write artifacts/{ingest,embed,instruct}: 12 yes/no questions, one of them new, and 12 captions."""
    artifacts = workspace / "artifacts"
    records = [_record(n, "pope", "yes" if n % 2 else "no", n == 0) for n in range(COUNT)]
    records += [_record(n, "caption_f1", "a red circle on the left", False) for n in range(COUNT)]
    write_manifest(artifacts / "ingest" / "benchmark", "question", records, [])
    rows = np.concatenate([unit_vectors(COUNT)] * 2)
    ids = [record["id"] for record in records]
    write_shards(artifacts / "embed" / "benchmark" / "images", [(ids, rows)], "f", 100)
    write_shards(artifacts / "embed" / "images" / "images", [(ids, rows)], "f", 100)
    save_model(artifacts / "instruct", "f")


def _record(number: int, benchmark: str, answer: str, novel: bool) -> dict[str, Any]:
    return {
        "id": f"{benchmark}-{number:02d}",
        "group_id": f"scene {number}",
        "source": "test",
        "image": f"root:{number}.png",
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "width": 8,
        "height": 8,
        "benchmark": benchmark,
        "question": QUESTIONS[number % 2],
        "answer": answer,
        "subset": "random" if benchmark == "pope" else None,
        "novel": novel,
    }
