"""compose.yaml and Dockerfile as far as reading them goes: no container engine is asked."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import services
from infra.settings import PREFERRED_PORTS, load_or_create

INFRA = Path(__file__).resolve().parents[2] / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments; a line that ends with a backslash goes on."""
    lines = [line for line in (INFRA / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in whole.splitlines() if line.strip()]


def test_the_containers_are_the_native_services_on_loopback() -> None:
    assert set(SERVICES) == {"worker", *services.STOPPED_FIRST}
    for name, port in PREFERRED_PORTS.items():
        assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert "ports" not in SERVICES["worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_says_whether_it_is_well_and_waits_for_what_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD" and service["healthcheck"]["retries"] >= 5
    assert all(need["condition"] == "service_healthy" for need in service.get("depends_on", {}).values())
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (INFRA / source).exists(), volume


def test_secrets_come_from_the_file_that_the_stack_writes(tmp_path: Path) -> None:
    settings = load_or_create(tmp_path / "home", tmp_path, {})
    written = dict(line.split("=", 1) for line in (settings.home / "compose.env").read_text().splitlines())
    asked = set(re.findall(r"\$\{(\w+):\?\}", (INFRA / "compose.yaml").read_text()))
    assert asked == set(written) and sorted(written.values()) == sorted(settings.secrets.values())
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|_KEY", variable) or "${" in value, variable


def test_the_image_is_built_from_the_hashed_lock_and_runs_without_rights() -> None:
    found = steps()
    assert {name for name, _ in found} <= INSTRUCTIONS and found[0][0] == "FROM"
    installs = [arguments for name, arguments in found if name == "RUN" and "pip install" in arguments]
    assert "--require-hashes --no-deps -r requirements.lock" in installs[0]
    assert all("--no-deps" in arguments for arguments in installs)
    last_stage = found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]
    users = [arguments for name, arguments in last_stage if name == "USER"]
    assert users == ["gapbridge"] and last_stage[-1][0] == "CMD"
    kept = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    for name, arguments in found:
        if name == "COPY" and "--from" not in arguments:
            sources = arguments.split()[:-1]
            assert all((INFRA.parent / source).exists() and f"!{source}" in kept for source in sources)


@pytest.mark.parametrize("script", ["worker.sh", "databases.sh"])
def test_the_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n", INFRA / script], check=True)
    assert (INFRA / script).stat().st_mode & 0o111


def test_the_worker_s_checkout_is_whole_and_follows_its_source(tmp_path: Path) -> None:
    source, work, programs = tmp_path / "source", tmp_path / "work", tmp_path / "programs"
    programs.mkdir()
    for name in ("python", "prefect"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n')
        (programs / name).chmod(0o755)
    git = ["git", "-C", str(source), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    (work / "checkout.partial" / ".git").mkdir(parents=True)  # as a container leaves it that was killed meanwhile
    environment = {"SOURCE": str(source), "WORK": str(work), "PATH": f"{programs}:/usr/bin:/bin"}
    for text in ("one", "two"):
        (source / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "-qm", text], check=True)
        subprocess.run(["sh", INFRA / "worker.sh"], env=environment, check=True)
        assert (work / "checkout" / "file").read_text() == text
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "python -m infra.remote" and called[-1].startswith("prefect worker start --pool gapbridge")
    assert {path.name for path in work.iterdir()} == {"checkout", "stack"}
