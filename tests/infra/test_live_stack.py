"""The real stack in a folder of its own on free ports, with a toy pipeline that its worker runs on a schedule."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .live import ROOT, Stack, commit, processes_that_name, running_stack, wait_for

PIPELINE = """
stages:
  copy: {cmd: cp number copied, deps: [number], params: [factor], outs: [copied]}
  multiply: {cmd: python multiply.py, deps: [copied, multiply.py], params: [factor], outs: [product]}
"""
MULTIPLY = """import pathlib, yaml
factor = yaml.safe_load(pathlib.Path("params.yaml").read_text())["factor"]
pathlib.Path("product").write_text(str(int(pathlib.Path("copied").read_text()) * factor))
"""
SERVICES = {"postgres", "s3", "mlflow", "prefect", "worker"}

pytestmark = pytest.mark.stack


class Toy(Stack):
    """The stack of a toy pipeline."""

    def make_checkout(self) -> None:
        """A git repository with the real flows and deployments, the schedule every minute, and two tiny stages."""
        self.checkout.mkdir()
        shutil.copytree(ROOT / "flows", self.checkout / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        deployments = (ROOT / "prefect.yaml").read_text()
        assert 'cron: "0 2 * * 6"' in deployments
        (self.checkout / "prefect.yaml").write_text(deployments.replace('cron: "0 2 * * 6"', 'cron: "* * * * *"'))
        files = {"dvc.yaml": PIPELINE, "params.yaml": "factor: 2\n", "number": "21", "multiply.py": MULTIPLY,
                 ".gitignore": "/.stack/\n", ".dvcignore": "/.stack/\n"}  # fmt: skip
        for name, text in files.items():
            (self.checkout / name).write_text(text)
        subprocess.run(["git", "init", "-q"], cwd=self.checkout, check=True)
        subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=self.checkout, check=True)
        commit(self.checkout)
        (self.checkout / "params.yaml").write_text("factor: 3\n")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(Toy) as stack:
        yield stack


def test_everything_is_well_within_two_minutes(stack: Stack) -> None:
    assert stack.started_seconds < 120
    table = stack.call("status")
    assert {line.split()[0] for line in table.splitlines() if line.endswith("  well")} == SERVICES
    before = stack.numbers()
    assert set(before) == SERVICES
    assert "worker: runs already" in stack.call("up")
    assert stack.numbers() == before


def test_no_secret_is_shown(stack: Stack) -> None:
    seen = stack.said + subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    seen += "".join(path.read_text() for path in (stack.home / "logs").iterdir())
    assert "rclone serve s3" in seen
    assert [secret for secret in stack.secrets if secret in seen] == []
    holders = [stack.home / "env", stack.home / "settings.json", stack.checkout / ".dvc" / "config.local"]
    for path in holders:
        assert path.stat().st_mode & 0o777 == 0o600
        assert any(secret in path.read_text() for secret in stack.secrets)
    known = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=stack.checkout, capture_output=True, text=True, check=True
    )
    assert not {".stack", "config.local"} & {Path(line[3:]).name for line in known.stdout.splitlines()}


def test_an_artefact_of_mlflow_lands_in_the_bucket(stack: Stack) -> None:
    program = (
        "import mlflow, pathlib\n"
        "run = mlflow.start_run(); pathlib.Path('a.bin').write_bytes(b'x' * 12_000_000)\n"
        "mlflow.log_metric('loss', .5); mlflow.log_artifact('a.bin'); mlflow.end_run()\n"
        "back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path='a.bin')\n"
        "print(run.info.run_id, pathlib.Path(back).stat().st_size)"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, env=stack.environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    run, size = next(line.split() for line in done.stdout.splitlines() if line.endswith(" 12000000"))
    (stored,) = (stack.home / "s3" / "gapbridge" / "mlflow").rglob(f"{run}/artifacts/a.bin")
    assert stored.stat().st_size == int(size)


def test_data_goes_to_the_remote_and_comes_back_and_damage_is_seen(stack: Stack, tmp_path: Path) -> None:
    def dvc(*arguments: str, check: bool = True) -> int:
        return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=check).returncode

    dvc("init", "-q", "--no-scm")
    shutil.copy(stack.checkout / ".dvc" / "config.local", tmp_path / ".dvc")
    content = os.urandom(60 << 20)  # larger than the parts in which it is sent and fetched
    (tmp_path / "large").write_bytes(content)
    dvc("add", "-q", "large")
    dvc("push", "-q")
    for path in (tmp_path / "large", tmp_path / ".dvc" / "cache"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    dvc("pull", "-q")
    assert (tmp_path / "large").read_bytes() == content
    stored = max((stack.home / "s3" / "gapbridge" / "dvc").rglob("*"), key=lambda path: path.stat().st_size)
    stored.chmod(0o600)
    with stored.open("r+b") as handle:
        handle.write(bytes([content[0] ^ 1]))
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    (tmp_path / "large").unlink()
    assert dvc("pull", "-q", check=False) != 0
    assert not (tmp_path / "large").exists()


def test_a_scheduled_run_is_made_picked_up_and_completed(stack: Stack) -> None:
    def runs(*types: str) -> list[dict[str, Any]]:
        return stack.ask("flow_runs", {"flow_runs": {"state": {"type": {"any_": types}}}})

    wait_for(lambda: runs("SCHEDULED"), 60)
    deployment = weekly(stack)
    schedule = deployment["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("* * * * *", "UTC")
    wait_for(lambda: runs("COMPLETED", "FAILED", "CRASHED"), 150)
    ended = runs("COMPLETED", "FAILED", "CRASHED")
    first = min(ended, key=lambda run: run["expected_start_time"])
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"]
    record = next((stack.home / "runs").glob(f"*-{first['id'][:8]}"))
    assert json.loads((record / "record.json").read_text())["flow_run"] == first["id"]
    assert (record / "params.yaml").read_text() == "factor: 3\n"
    assert "product" in (record / "dvc.lock").read_text()
    stored = [path.read_text() for path in (stack.home / "s3" / "gapbridge" / "dvc").rglob("*") if is_small(path)]
    assert {"21", "63"} <= set(stored)
    tasks = stack.ask("task_runs", {"flow_runs": {"id": {"any_": [first["id"]]}}})
    assert {task["name"]: task["state"]["type"] for task in tasks} == dict.fromkeys(
        ("copy", "multiply", "publish"), "COMPLETED"
    )
    assert not (stack.checkout / "copied").exists()


def test_the_doctor_finds_every_service_well(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gapbridge.cli", "doctor", "--json"], cwd=stack.checkout, env=stack.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    services = ("Prefect", "MLflow", "PostgreSQL", "S3", "DVC remote")
    assert {name: found[name]["status"] for name in services} == dict.fromkeys(services, "well")
    assert "Prefect's workers" not in found and "stack" not in found
    assert not any(secret in done.stdout + done.stderr for secret in stack.secrets)


def test_a_taken_port_is_named_and_nothing_is_left_running(stack: Stack) -> None:
    other = stack.checkout.parent / "other"
    other.mkdir()
    taken = stack.environment["MLFLOW_TRACKING_URI"].rpartition(":")[2]
    said = stack.call("up", "--home", str(other), "--port", f"s3={taken}", check=False)
    assert f"s3: port {taken} is taken by another program" in said.splitlines()[-1]
    assert "--port s3=NUMBER" in said and not list((other / "processes").iterdir())


def test_stopping_ends_a_run_under_way_and_leaves_no_process(stack: Stack) -> None:
    (stack.checkout / "multiply.py").write_text(MULTIPLY + "import time; time.sleep(600)")
    commit(stack.checkout)
    deployment = weekly(stack)
    stack.post(f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    wait_for(lambda: any("multiply.py" in line for line in processes_that_name(stack.checkout)), 120)
    stack.call("down")
    assert processes_that_name(stack.checkout) == []
    assert not list((stack.home / "workspaces").glob("*/dvc.yaml"))
    assert stack.call("down").count("did not run") == len(SERVICES)
    assert stack.call("status", check=False).count("not running") == len(SERVICES)


def weekly(stack: Stack) -> dict[str, Any]:
    (found,) = stack.ask("deployments", {"deployments": {"name": {"any_": ["weekly"]}}})
    return found


def is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 100
