"""A real MLflow registry whose alias moves while requests come."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.probe import write_probe
from gapbridge.mirror import open_store
from gapbridge.model_package import register
from gapbridge.registry import Registry
from gapbridge.serving.app import make_app
from gapbridge.serving.settings import Settings
from gapbridge.serving.sources import AliasSource, wait_for_version
from tests.evaluate.tiny import QUESTIONS
from tests.serving.chats import CHAT, benchmark_answer, chat, picture, running, save_seeing

FIRST, SECOND, OTHERWISE, DAMAGED, UNPROBED, NO_DIGEST = range(1, 7)


@pytest.fixture(scope="module")
def store(model_folder: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose registry has a version of every kind."""
    workspace = tmp_path_factory.mktemp("workspace")
    shutil.copyfile(empty_store, workspace / "mlflow.db")
    for name in ("dvc.lock", "params.yaml", "card.md"):
        (workspace / name).write_text(name)
    another = workspace / "another"
    save_seeing(another, changed=True)
    pictures = [picture(number) for number in range(4)]
    probes = []
    for name, folder in (("first", model_folder), ("second", another)):
        (workspace / name).mkdir()
        predictor = Predictor.load(folder)
        probes.append(write_probe(workspace / name, predictor, pictures, QUESTIONS, max_new_tokens=6))
    packages = [
        (model_folder, probes[0]),
        (another, probes[1]),
        (model_folder, probes[1]),
        (another, probes[1]),
        (another, None),
        (model_folder, None),
    ]
    for number, (folder, probe) in enumerate(packages, start=1):
        assert register(workspace, "tiny", folder, workspace / "card.md", probe) == number
    with open_store(workspace) as (client, _):
        weights = Path(
            client.get_model_version("tiny", str(DAMAGED)).source.removeprefix("file://"), "model.safetensors"
        )
        client.delete_model_version_tag("tiny", str(NO_DIGEST), "package.digest")
    content = bytearray(weights.read_bytes())
    content[-10] ^= 1
    weights.write_bytes(content)
    return workspace


@pytest.fixture
def promote(store: Path) -> Callable[[int], None]:
    """Moves the alias, as another process would."""

    def move(number: int) -> None:
        with open_store(store) as (client, _):
            client.set_registered_model_alias("tiny", "champion", str(number))

    return move


@pytest.fixture
def source(store: Path, tmp_path: Path) -> AliasSource:
    """The alias, with a cache of its own."""
    return AliasSource(Registry(store), "tiny@champion", None, tmp_path / "cache")


def test_it_can_wait_until_there_is_such_a_version(store: Path, tmp_path: Path) -> None:
    later = AliasSource(Registry(store), "tiny@later", None, tmp_path / "cache")
    with pytest.raises(InputError, match="tiny@later"):
        later.current()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_for_version, later, 0.05)
        time.sleep(0.3)
        assert not waiting.done()
        with open_store(store) as (client, _):
            client.set_registered_model_alias("tiny", "later", str(SECOND))
        waiting.result(20)
    assert later.current().number == SECOND


@contextmanager
def served(source: AliasSource) -> Iterator[httpx.Client]:
    settings = Settings(poll_seconds=0.2)
    with running(make_app(settings, source), settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def until(client: httpx.Client, **wanted: Any) -> dict[str, Any]:
    """What `/readyz` says as soon as it says that."""
    deadline = time.monotonic() + 30
    while True:
        found = client.get("/readyz").json()
        if all(found[name] == value for name, value in wanted.items()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_promoted_model_takes_over_without_a_failed_request(
    source: AliasSource, promote: Callable[[int], None], store: Path, model_folder: Path
) -> None:
    answers: dict[str, str] = {}
    for number, folder in ((FIRST, model_folder), (SECOND, store / "another")):
        predictor = Predictor.load(folder)
        answers[str(number)] = benchmark_answer(predictor, QUESTIONS[0], picture(0))
    assert len(set(answers.values())) == 2
    promote(FIRST)
    with served(source) as client:
        address, found, stop = str(client.base_url), list[tuple[str, str]](), asyncio.Event()

        async def ask_on(asking: httpx.AsyncClient) -> None:
            while not stop.is_set():
                response = await asking.post(CHAT, json=chat())
                assert response.status_code == 200, response.text
                content = response.json()
                version = content["system_fingerprint"].removeprefix("tiny@champion/").partition("-")[0]
                found.append((version, content["choices"][0]["message"]["content"]))

        async def switch() -> None:
            for number in (SECOND, FIRST, SECOND):
                await asyncio.to_thread(promote, number)
                await asyncio.to_thread(until, client, version=str(number))
                await asyncio.sleep(0.3)
            stop.set()

        async def everything() -> None:
            async with httpx.AsyncClient(base_url=address, timeout=60) as asking:
                await asyncio.gather(switch(), *(ask_on(asking) for _ in range(4)))

        asyncio.run(everything())
        assert {version for version, _ in found} == {str(FIRST), str(SECOND)}
        assert all(answers[version] == answer for version, answer in found), "each by the model that it names"
        assert "gapbridge_model_switches_total 3.0" in client.get("/metrics").text
        assert client.post(CHAT, json=chat(model="tiny")).json()["model"] == "tiny@champion"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (OTHERWISE, "probe questions are answered otherwise"),
        (DAMAGED, "not those that were registered"),
        (NO_DIGEST, "digest"),
    ],
)
def test_a_model_that_cannot_take_over_stays_out_and_that_is_seen(
    source: AliasSource, promote: Callable[[int], None], caplog: pytest.LogCaptureFixture, number: int, reason: str
) -> None:
    promote(FIRST)
    with served(source) as client:
        before = client.post(CHAT, json=chat()).json()["choices"]
        promote(number)
        found = until(client, refused_version=str(number))
        assert reason in found["reason"] and found["version"] == str(FIRST) and found["ready"]
        assert client.post(CHAT, json=chat()).json()["choices"] == before
        assert f"gapbridge_refused_version {float(number)}" in client.get("/metrics").text
        time.sleep(0.8)  # several looks at the alias
        assert sum(reason in record.message for record in caplog.records) == 1, "it is tried once"
        promote(SECOND)
        assert until(client, version=str(SECOND))["refused_version"] is None


def test_a_version_without_a_probe_is_served(source: AliasSource, promote: Callable[[int], None]) -> None:
    promote(UNPROBED)
    with served(source) as client:
        assert client.post(CHAT, json=chat()).status_code == 200


def test_the_first_model_must_do(source: AliasSource, promote: Callable[[int], None]) -> None:
    promote(OTHERWISE)
    with pytest.raises(ArtifactError, match="4 of 4 probe questions"):
        make_app(Settings(), source)


def test_a_registry_that_goes_away_is_seen_and_the_model_stays(
    source: AliasSource, promote: Callable[[int], None], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promote(FIRST)
    with served(source) as client:
        with open_store(store) as (registry, _):
            registry.delete_registered_model_alias("tiny", "champion")
        deadline = time.monotonic() + 30
        while "gapbridge_alias_reached 0.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "not in the registry" in until(client, version=str(FIRST), ready=True)["reason"]
        assert client.post(CHAT, json=chat()).status_code == 200
        time.sleep(0.8)
        assert sum("not in the registry" in record.message for record in caplog.records) == 1
        promote(FIRST)
        until(client, reason=None)


def test_files_are_downloaded_once_and_mended_when_damaged(
    store: Path, promote: Callable[[int], None], tmp_path: Path
) -> None:
    promote(SECOND)
    registry = Registry(store)
    version = registry.resolve("tiny@champion")
    folder = registry.fetch(version, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(path.name for path in (store / "another").iterdir()), "README.md", "dvc.lock", "params.yaml", "probe.json"]
    )
    (folder / "kept").touch()
    assert registry.fetch(version, tmp_path) == folder
    assert not (folder / "kept").exists(), "a file too many is damage as well"
    marked = (folder / "config.json").stat().st_mtime_ns
    assert registry.fetch(version, tmp_path) == folder
    assert (folder / "config.json").stat().st_mtime_ns == marked
    with pytest.raises(ArtifactError, match="not those that were registered"):
        promote(DAMAGED)
        registry.fetch(registry.resolve("tiny@champion"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", folder.name]


def test_which_model_is_meant(store: Path, tmp_path: Path) -> None:
    registry = Registry(store)
    assert AliasSource(registry, None, None, tmp_path).name == "tiny@champion", "the only one"
    assert AliasSource(registry, None, "other", tmp_path).name == "other@champion", "that of the params"
    assert AliasSource(registry, "tiny@candidate", "other", tmp_path).name == "tiny@candidate"
    with pytest.raises(InputError, match="other@champion: not in the registry"):
        AliasSource(registry, "other", None, tmp_path).current()
    with pytest.raises(InputError, match="names no model"):
        AliasSource(registry, "@champion", None, tmp_path)
    with open_store(store) as (client, _):
        client.create_registered_model("second")
        with pytest.raises(InputError, match="the registry has second, tiny; name one"):
            AliasSource(registry, None, None, tmp_path)
        client.delete_registered_model("second")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///{}/notes.txt", "nonsense://nowhere"])
def test_a_registry_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    (tmp_path / "notes.txt").write_text("no database, but long enough to be looked at as if it were one " * 20)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="the registry does not answer") as caught:
        Registry(tmp_path).names()
    assert "\n" not in str(caught.value)
