"""Starting and giving up, with small programs in the place of the services."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import postgres, services, stack
from infra.services import Service
from infra.settings import Settings, StackError, load_or_create

SLEEP = "import time; time.sleep(300)"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(services, "require_programs", lambda: None)
    monkeypatch.setattr(services, "cancel_runs", lambda settings: None)
    monkeypatch.setattr(postgres, "initialise", lambda settings: None)
    return load_or_create(tmp_path / "home", tmp_path, {})


def service(name: str, program: str, complaint: Callable[[], str | None], needs: tuple[str, ...] = ()) -> Service:
    return Service(name, [sys.executable, "-c", program], complaint, needs=needs)


def test_what_needs_another_starts_when_that_is_well(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def complaint(name: str) -> Callable[[], str | None]:
        def ask() -> str | None:
            asked.append(name)
            return None if asked.count(name) > 2 else "not yet"

        return ask

    every = [service("worker", SLEEP, complaint("worker"), needs=("s3",)), service("s3", SLEEP, complaint("s3"))]
    monkeypatch.setattr(services, "all_services", lambda settings: every)
    try:
        stack.up(settings)
        assert asked == ["s3"] * 3 + ["worker"] * 3
        numbers = {name: settings.process_file(name).read_text() for name in ("s3", "worker")}
        stack.up(settings)
        assert numbers == {name: settings.process_file(name).read_text() for name in ("s3", "worker")}
        assert stack.status(settings)
    finally:
        stack.down(settings)
    assert not stack.status(settings)


def test_a_service_that_ends_shows_its_last_words_and_the_others_are_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = settings.secrets["mlflow_password"]
    fails = (
        f"for line in range(40): print('line', line)\nprint('cannot connect as mlflow:{secret}@'); raise SystemExit(3)"
    )
    every = [service("s3", SLEEP, lambda: None), service("mlflow", fails, lambda: "silent", needs=("s3",))]
    monkeypatch.setattr(services, "all_services", lambda settings: every)
    with pytest.raises(StackError) as caught:
        stack.up(settings)
    said = str(caught.value)
    assert said.startswith("mlflow: ended with status 3; mend what its log says")
    assert "cannot connect as mlflow:***@" in said and secret not in said
    assert "| line 39" in said and "| line 5\n" not in said
    assert list((settings.home / "processes").iterdir()) == []


def test_a_service_that_is_never_well_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "HEALTHY_SECONDS", 0.5)
    monkeypatch.setattr(services, "all_services", lambda settings: [service("s3", SLEEP, lambda: "connection refused")])
    with pytest.raises(StackError, match=r"s3: not well after 0\.5 s \(connection refused\)"):
        stack.up(settings)
    assert list((settings.home / "processes").iterdir()) == []


def test_a_deployment_that_takes_too_long_is_one_line_and_is_not_taken_for_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.checkout / "prefect.yaml").write_text("deployments: []\n")
    monkeypatch.setattr(stack, "DEPLOY_SECONDS", 0.1)
    monkeypatch.setattr(services, "all_services", lambda settings: [service("s3", SLEEP, lambda: None)])
    with pytest.raises(StackError, match=r"deploy: .* within 0\.1 s; try again with `make deploy`"):
        stack.up(settings)
    assert list((settings.home / "processes").iterdir()) == [] and not (settings.home / "deployed").exists()


@pytest.mark.parametrize("words", [["up", "--port", "s4=1"], ["up", "--port", "s3=no"], ["jump"]])
def test_a_wrong_command_line_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stack", "--home", str(tmp_path / "home"), *words])
    with pytest.raises(SystemExit) as caught:
        stack.main()
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_nothing_to_stop_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stack", "--home", str(tmp_path / "home"), "down"])
    assert stack.main() == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/home: no stack lies here; start one with `make stack`\n"
