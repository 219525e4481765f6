"""Shards of two clouds of unit vectors a gap apart, as the embed stage would have left them.

Shapes: `n` rows, `d` width.
"""

from pathlib import Path

import numpy as np

from gapbridge.embeddings.shards import write_shards

WIDTH = 12
_RANDOM = np.random.default_rng(7)
CENTRES = {"texts": _RANDOM.normal(size=WIDTH) * 2, "images": _RANDOM.normal(size=WIDTH) * 2}


def cloud(side: str, content: np.ndarray) -> np.ndarray:
    """Unit rows (n, d) of one side; rows of the same `content` (n, d) are pairs across the sides."""
    spread = {"texts": 0.8, "images": 1.0}[side]
    rows = CENTRES[side] + spread * content
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_cloud(
    workspace: Path, name: str, side: str, rows: int, fingerprint: str = "encoder", seed: int = 0, group_rows: int = 1
) -> None:
    """Write artifacts/embed/<name>/<side> with `group_rows` rows a group."""
    content = np.random.default_rng(seed).normal(size=(rows, WIDTH)) * np.linspace(1.2, 0.3, WIDTH)
    ids = [f"{name}{i:05d}" for i in range(rows)]
    groups = [f"{name} scene {i // group_rows}" for i in range(rows)]
    folder = workspace / "artifacts" / "embed" / name / side
    write_shards(folder, [(ids, cloud(side, content))], fingerprint, 500, groups)
