"""The tiny model and a few vectors."""

from pathlib import Path

import numpy as np
import pytest

from .tiny import save_model, unit_vectors


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model directory."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    """Unit vectors (6, 16)."""
    return unit_vectors(6)
