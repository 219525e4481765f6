"""Predictions on disk: JSON Lines, one line an item, in the order of the items."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import ArtifactError
from gapbridge.evaluate.protocol import Graded, Rules

SEEING = "predictions.jsonl"
BLIND = "predictions_blind.jsonl"


def write_predictions(path: Path, graded: Iterable[Graded], rules: Mapping[str, Rules]) -> None:
    """Write every item with its raw generation; `rules` are those of each benchmark id."""
    lines = [json.dumps(_line(one, rules[one.item.benchmark]), ensure_ascii=False, sort_keys=True) for one in graded]
    artifacts.write_bytes(path, "".join(line + "\n" for line in lines).encode())


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The lines that `write_predictions` wrote. Raises ArtifactError when the file is missing or damaged."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); run `gapbridge evaluate` again") from error


def _line(one: Graded, rules: Rules) -> dict[str, Any]:
    score = {"f1": one.score} if rules.measure == "f1" else {"correct": bool(one.score)}
    return {
        "item_id": one.item.item_id,
        "group_id": one.item.group_id,
        "benchmark": one.item.benchmark,
        "protocol": rules.id,
        "subset": one.item.subset,
        "novel": one.item.novel,
        "prompt": one.prompt,
        "raw": one.raw,
        "parsed": one.parsed,
        "answer": one.item.answer,
        **score,
    }
