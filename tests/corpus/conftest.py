"""A user's files, made by the tests in the real formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gapbridge.corpus.gather import gather
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Origin

MAX_PIXELS = 10_000
Gathered = tuple[list[dict[str, Any]], list[BadRow]]


@pytest.fixture
def save_picture(tmp_path: Path) -> Callable[..., Path]:
    """Saves a picture of noise, distinct for each seed."""

    def save(name: str, seed: int = 0, size: tuple[int, int] = (12, 8)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return save


@pytest.fixture
def save_lines(tmp_path: Path) -> Callable[..., None]:
    """Saves JSON Lines; a row that is bytes is written as it is."""

    def save(name: str, rows: list[Any]) -> None:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")

    return save


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Gathered]:
    """Gathers one source below the test's folder."""

    def run(file_format: str, kind: str, path: str, images: str | None = None, **more: Any) -> Gathered:
        rows = list(gather(Origin("texts", tmp_path, path, images, **more), file_format, kind, MAX_PIXELS))
        bad = [row for row in rows if isinstance(row, BadRow)]
        return [row for row in rows if not isinstance(row, BadRow)], bad

    return run
