"""`gapbridge serve`: what it refuses to start with, in one line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gapbridge.cli import cli
from gapbridge.errors import ArtifactError, GapbridgeError, InputError


def error_of(*arguments: str, **environment: str) -> GapbridgeError:
    result = CliRunner().invoke(cli, ["serve", *arguments], env=environment)
    assert isinstance(result.exception, GapbridgeError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])  # noqa: S104
def test_it_is_not_open_to_others_without_a_token(model_folder: Path, host: str) -> None:
    error = error_of("--model", str(model_folder), "--host", host)
    assert isinstance(error, InputError) and "GAPBRIDGE_SERVE_TOKEN" in str(error)


@pytest.mark.parametrize("token", ["", "  ", "a\nb"])
def test_a_token_that_is_none_is_not_taken_for_one(model_folder: Path, token: str) -> None:
    error = error_of("--model", str(model_folder), "--host", "0.0.0.0", GAPBRIDGE_SERVE_TOKEN=token)  # noqa: S104
    assert "GAPBRIDGE_SERVE_TOKEN" in str(error)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    error = error_of("--model", str(tmp_path))
    assert isinstance(error, ArtifactError) and str(tmp_path) in str(error)


def test_no_registry_here_is_said_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no mlflow.db here" in str(error_of("tiny@champion"))
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_line(model_folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port}: cannot listen there" in str(error_of("--model", str(model_folder), "--port", port))


def test_a_name_and_a_folder_are_too_much() -> None:
    result = CliRunner().invoke(cli, ["serve", "tiny@champion", "--model", "folder"])
    assert result.exit_code == 2
