"""Fixtures that more than one folder of tests uses."""

import os
from pathlib import Path

import pytest

# Before any library is imported: no test talks to the outside, whatever it imports.
os.environ.update(
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_NO_ADVISORY_WARNINGS="1",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("PREFECT_API_URL", None)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The tree under test; read it, never write to it."""
    return ROOT


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vector cache and scratch of this test alone."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("GAPBRIDGE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("GAPBRIDGE_SCRATCH", str(folder / "scratch"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to make; copy it to mlflow.db in a workspace."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(tmp_path: Path, checkout: Path) -> Path:
    """An empty workspace with the tree's params and pipeline."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    return tmp_path
