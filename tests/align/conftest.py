"""Clouds of unit vectors about a mean of their own."""

import numpy as np
import pytest

from tests.align.oracle import Cloud, project


@pytest.fixture
def cloud() -> Cloud:
    """`cloud(rows, seed, width=24)`: unit rows (rows, width) about a mean of their own, stretched unevenly."""

    def make(rows: int, seed: int, width: int = 24) -> np.ndarray:
        random = np.random.default_rng(seed)
        stretch = np.linspace(1.5, 0.2, width)
        return project(random.normal(size=(rows, width)) * stretch + 1.2 * random.normal(size=width))

    return make
