"""The registry's reader on a real store: what references mean, and what happens when the store does not answer."""

import errno
import shutil
from pathlib import Path

import pytest

from gapbridge.errors import InputError, one_line
from gapbridge.model_package import register
from gapbridge.registry import Registry


@pytest.fixture
def home(tmp_path: Path, empty_store: Path) -> Path:
    """A workspace with an empty store, and what registering needs."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "model").mkdir()
    for name in ("model/config.json", "card.md", "dvc.lock", "params.yaml"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def registered(home: Path, name: str = "tiny") -> int:
    return register(home, name, home / "model", home / "card.md")


def test_what_a_reference_means(home: Path) -> None:
    assert [registered(home) for _ in range(2)] == [1, 2]
    registry = Registry(home)
    registry.client.set_registered_model_alias("tiny", "champion", "1")
    assert [registry.resolve(one).number for one in ("tiny@champion", "tiny", "tiny/2")] == [1, 2, 2]
    for reference in ("big", "big@champion", "big/1", "tiny@other", "tiny@", "tiny/3", f"tiny/{10**30}", "@champion",
                      "it's", "", "it's@champion"):  # fmt: skip
        with pytest.raises(InputError, match="not in the registry, whose models are tiny"):
            registry.resolve(reference)
    for reference in ("tiny/", "tiny/x", "tiny/²", "tiny/-1"):
        with pytest.raises(InputError, match="write NAME, NAME@ALIAS or NAME/NUMBER"):
            registry.resolve(reference)


def test_a_registration_that_is_cut_short_leaves_a_run_that_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.MlflowClient.log_artifacts", stopped)
    with pytest.raises(KeyboardInterrupt):
        registered(home)
    registry = Registry(home)
    (run,) = registry.client.search_runs([registry.experiment_id])
    assert (run.info.run_name, run.info.status) == ("register", "FAILED")
    assert registry.versions("tiny") == []


def test_a_package_lacks_what_it_was_registered_without(home: Path) -> None:
    registered(home)
    registry = Registry(home)
    version = registry.resolve("tiny")
    found = registry.part(version, "dvc.lock", home)
    assert found is not None and found.read_text() == "{}"
    assert registry.part(version, "evidence", home) is None


def test_more_models_than_one_answer_of_mlflow_holds_are_all_seen(home: Path) -> None:
    registry = Registry(home)
    wanted = [f"model-{number:03d}" for number in range(102)]
    for name in wanted:
        registry.ensure_model(name)
        registry.ensure_model(name)
    assert registry.names() == wanted
    with pytest.raises(InputError, match="which model"):
        registry.only_name()


def test_a_name_that_mlflow_does_not_take_is_refused_in_its_words(home: Path) -> None:
    with pytest.raises(InputError, match=r"the registry refuses that \(.*name"):
        registered(home, "a/b")


def test_it_connects_again_after_an_outage(home: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mlflow.db").write_text("no database, but long enough to be looked at as if it were one " * 20)
    registry = Registry(home)
    for _ in range(2):
        with pytest.raises(InputError, match="the registry does not answer") as caught:
            registry.names()
        assert "\n" not in str(caught.value)
    shutil.copyfile(empty_store, home / "mlflow.db")
    assert registry.names() == []


def test_a_full_disk_is_not_taken_for_an_outage(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(home)
    registry = Registry(home)
    version = registry.resolve("tiny")

    def full(**named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", full)
    with pytest.raises(OSError, match="No space left") as caught, registry.package(version):
        raise AssertionError
    assert caught.value.errno == errno.ENOSPC


def test_a_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+pg8000://me:secret@127.0.0.1:1/mlflow")
    with pytest.raises(InputError, match=r"\(postgresql\+pg8000 needs pg8000, which is not installed here\)"):
        Registry(tmp_path).names()


def test_nothing_is_made_where_nothing_is_registered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no mlflow\.db here"):
        Registry(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_library_s_error_is_one_short_line_without_a_password() -> None:
    said = one_line(ValueError("no answer\n from 'postgresql+psycopg://me:pa/s@host:1/db' " + "and so on " * 50))
    assert said.startswith("no answer from 'postgresql+psycopg://…@host:1/db' and so") and 180 < len(said) <= 202
    assert said.endswith((" and …", " so …", " on …")), "it ends with a whole word"
    assert one_line(ValueError()) == "ValueError"
