"""A tiny model, and services of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from gapbridge.evaluate.predict import Predictor
from gapbridge.serving.app import make_app
from gapbridge.serving.settings import Settings
from gapbridge.serving.sources import FolderSource
from tests.serving.chats import save_seeing

Start = Callable[..., TestClient]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model directory, called `tiny`."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_seeing(folder)
    return folder


@pytest.fixture(scope="session")
def predictor(model_folder: Path) -> Predictor:
    """The same model, as the benchmarks ask it."""
    return Predictor.load(model_folder, batch_size=1)


@pytest.fixture(scope="module")
def start(model_folder: Path) -> Iterator[Start]:
    """Starts a service with the settings given, and a client of it."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> TestClient:
            app = make_app(Settings(**settings), FolderSource(model_folder))
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield begin


@pytest.fixture(scope="module")
def client(start: Start) -> TestClient:
    """A client of a service with the usual settings."""
    return start()
