"""The whole product on its stack: a scheduled run becomes a served model with no further command, then things break."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest
import yaml

from gapbridge.evaluate.predict import Predictor
from tests.pipeline.conftest import copy_of_tracked_files
from tests.serving.chats import benchmark_answer, first_message, picture

from .live import Stack, commit, free_ports, processes_that_name, running_stack, wait_for

MODEL = "whole"
QUESTION = "what color is the circle"
LENIENT = {"max_gap_over_floor": 1000.0, "yes_rate": [0.0, 1.0]}
"""What a model of the smoke profile can pass."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
START_SECONDS = 120
"""The scheduled run begins at the first full minute after so long: the stack must be well by then."""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


class Whole(Stack):
    """The stack of a copy of this tree with the smoke profile, whose weekly run is due in some minutes."""

    def make_checkout(self) -> None:
        """Commit the copy: its params register the model, its schedule is this day's."""
        self.checkout.mkdir()
        copy_of_tracked_files(self.checkout, "smoke")
        params = yaml.safe_load((self.checkout / "params.yaml").read_text())
        params["report"]["register_as"] = MODEL
        params["promote"] |= LENIENT
        (self.checkout / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        deployments = (self.checkout / "prefect.yaml").read_text()
        assert '"0 2 * * 6"' in deployments
        due = datetime.now(UTC) + timedelta(seconds=START_SECONDS + 60)
        cron = f'"{due.minute} {due.hour} * * *"'
        (self.checkout / "prefect.yaml").write_text(deployments.replace('"0 2 * * 6"', cron))
        commit(self.checkout)

    def gapbridge(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of the checkout's own code, as in a shell that has read .stack/env."""
        return subprocess.run(
            [sys.executable, "-m", "gapbridge.cli", *arguments], cwd=self.checkout, text=True, check=False,
            env=self.shell | variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
        )  # fmt: skip

    @property
    def shell(self) -> dict[str, str]:
        """The environment of such a shell."""
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return self.environment | {"PYTHONPATH": str(self.checkout / "src"), "PATH": programs}

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Its flow runs that have begun."""
        query = {"deployments": {"name": {"any_": [deployment]}}, "sort": "START_TIME_ASC"}
        return [run for run in self.ask("flow_runs", query) if run["start_time"]]

    def ended(self, deployment: str, seconds: float) -> dict[str, Any]:
        """The first run of the deployment, when it has ended."""
        wait_for(lambda: [run for run in self.runs(deployment) if run["state_type"] in ENDED], seconds)
        return self.runs(deployment)[0]

    def record(self) -> Path:
        """What the run of train left."""
        return next((self.home / "runs").glob(f"*-{self.runs('weekly')[0]['id'][:8]}"))

    def stored(self, name: str) -> Path:
        """The one file of the registered package with that name, in the bucket."""
        (found,) = (self.home / "s3" / "gapbridge" / "mlflow").glob(f"*/*/artifacts/model/**/{name}")
        return found


class Service:
    """`gapbridge serve`, started before there is a model."""

    def __init__(self, whole: Whole) -> None:
        (port,) = free_ports(1)
        self.first_answer: str | None = None
        self.address, self.log = f"http://127.0.0.1:{port}", whole.folder / "serve.log"
        command = [sys.executable, "-m", "gapbridge.cli", "serve", f"{MODEL}@champion", "--wait", "--port", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=whole.checkout, env=whole.shell, stdout=log, stderr=log)

    def readiness(self) -> dict[str, Any] | None:
        """What it says of its model; None while it does not listen."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=10) as reply:
                return json.load(reply)
        except OSError:
            return None

    def answer(self) -> str:
        """To a question about a picture, through OpenAI's client."""
        with openai.OpenAI(base_url=f"{self.address}/v1", api_key="none", max_retries=0) as client:
            messages: Any = [first_message(0, QUESTION)]
            found = client.chat.completions.create(model=f"{MODEL}@champion", messages=messages, max_tokens=8)
        return found.choices[0].message.content or ""

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with running_stack(Whole) as stack:
        yield stack


@pytest.fixture(scope="module")
def service(whole: Whole) -> Iterator[Service]:
    service = Service(whole)
    yield service
    if service.process.poll() is None:
        service.end()


@contextmanager
def flipped(path: Path) -> Iterator[None]:
    """One bit in the middle of the file is another one, until the block ends."""
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(damaged)
    try:
        yield
    finally:
        path.write_bytes(whole)
        path.chmod(mode)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that ended with it alone."""
    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.splitlines() == errors and len(errors) == 1, done.stderr
    return errors[0]


def clone(whole: Whole, folder: Path) -> Path:
    """A colleague's clone with the run's dvc.lock, whose cache is empty."""
    subprocess.run(["git", "clone", "-q", str(whole.checkout), str(folder)], check=True)
    for name in ("dvc.lock", "params.yaml"):
        (folder / name).write_bytes((whole.record() / name).read_bytes())
    local = folder / ".dvc" / "config.local"
    local.write_bytes((whole.checkout / ".dvc" / "config.local").read_bytes())
    return folder


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, text=True, check=False, capture_output=True
    )


def test_a_scheduled_run_becomes_a_served_model_with_no_further_command(whole: Whole, service: Service) -> None:
    assert whole.started_seconds < START_SECONDS
    assert service.readiness() is None and service.process.poll() is None
    trained = whole.ended("weekly", 660)
    assert trained["state_type"] == "COMPLETED", trained["state"]["message"]
    assert trained["auto_scheduled"]
    promoted = whole.ended("after-train", 120)
    assert promoted["state_name"] == "Promoted", promoted["state"]["message"]
    wait_for(service.readiness, 120)
    assert (service.readiness() or {})["version"] == "1"
    assert f"waiting for {MODEL}@champion" in service.log.read_text()
    print(f"\nthe stack took {whole.started_seconds:.0f} s, the run {trained['total_run_time']:.0f} s")
    service.first_answer = service.answer()


def test_it_answers_as_the_model_that_comes_from_the_bucket(whole: Whole, service: Service, tmp_path: Path) -> None:
    folder = clone(whole, tmp_path / "clone")
    pulled = dvc(folder, "pull", "-q", "instruct")
    assert pulled.returncode == 0, pulled.stderr
    predictor = Predictor.load(folder / "artifacts" / "instruct", batch_size=1)
    assert service.first_answer == benchmark_answer(predictor, QUESTION, picture(0))
    objects = whole.home / "s3" / "gapbridge" / "dvc" / "files" / "md5"
    named = [out["md5"] for stage in locked(whole).values() for out in stage["outs"] if out.get("md5")]
    assert len(named) > 12 and all((objects / md5[:2] / md5[2:]).is_file() for md5 in named)


def locked(whole: Whole) -> dict[str, Any]:
    """The stages of the run's dvc.lock; metrics and plots that git keeps are left out."""
    stages = yaml.safe_load((whole.record() / "dvc.lock").read_text())["stages"]
    return {
        name: stage | {"outs": [out for out in stage["outs"] if out["path"].startswith("artifacts")]}
        for name, stage in stages.items()
    }


def test_postgresql_holds_the_runs_and_the_registry(whole: Whole) -> None:
    address = whole.environment["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM runs WHERE status = 'FINISHED'")}
        assert locked(whole).keys() | {"register", "promote"} <= names
        ((version, source),) = connection.execute(
            "SELECT version, source FROM model_versions WHERE name = %s", (MODEL,)
        ).fetchall()
        assert version == 1 and source.startswith("mlflow-artifacts:/")
        aliases = connection.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        assert aliases == [("champion", 1)]
    assert whole.stored("model.safetensors").stat().st_size > 100_000


def test_lineage_leads_back_to_lock_commit_params_and_counts(whole: Whole) -> None:
    done = whole.gapbridge("lineage", f"{MODEL}@champion", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    record = whole.record()
    commit_here = json.loads((record / "record.json").read_text())["commit"]
    assert found["aliases"] == ["champion"] and found["tags"]["git.commit"] == commit_here
    assert found["tags"]["git.dirty"] == "false"
    assert found["tags"]["dvc.lock"] and found["params"]["promote.max_gap_over_floor"] == 1000.0
    assert {name: one["rows"] for name, one in found["sets"].items()}["texts"] == 1000
    outs = {out["path"]: out["md5"] for stage in locked(whole).values() for out in stage["outs"]}
    kept = {path: md5 for path, md5 in found["stages"].items() if path in outs}
    assert kept == {path: md5 for path, md5 in outs.items() if path in kept} and "artifacts/instruct" in kept
    assert [one["state"] for one in found["decisions"]] == ["promoted"]
    assert not any("commit" in obstacle or "differed" in obstacle for obstacle in found["obstacles"])


@pytest.mark.parametrize("part", ["password", "port", "name"])
def test_a_bit_in_the_address_of_the_database(whole: Whole, service: Service, part: str) -> None:
    address = whole.environment["MLFLOW_BACKEND_STORE_URI"]
    secret = address.split(":")[2].partition("@")[0]
    port, name = address.rpartition("/")[0].rpartition(":")[2], address.rpartition("/")[2]
    digit = next(letter for letter in secret if letter.isdigit())
    was = {"password": secret, "port": port, "name": f"/{name}"}[part]
    now = {
        "password": secret.replace(digit, chr(ord(digit) ^ 1), 1),
        "port": port[:-1] + chr(ord(port[-1]) ^ 1),
        "name": f"/{name[:-1]}{chr(ord(name[-1]) ^ 1)}",
    }[part]
    before, _, after = address.rpartition(was)
    wrong = before + now + after
    assert wrong != address
    said = one_line(whole.gapbridge("lineage", f"{MODEL}@champion", MLFLOW_TRACKING_URI=wrong))
    assert "the registry does not answer" in said and "Background" not in said
    doctor = whole.gapbridge("doctor", MLFLOW_BACKEND_STORE_URI=wrong)
    (line,) = [line for line in doctor.stdout.splitlines() if "PostgreSQL" in line and "failed" in line]
    assert doctor.returncode == 1 and line
    told = said + doctor.stdout + doctor.stderr
    assert not any(word in told for word in (secret, now if part == "password" else secret))
    print(f"\n{said}\n{line}")
    still_serves(service)


def still_serves(service: Service) -> None:
    assert service.process.poll() is None
    assert (service.readiness() or {})["version"] == "1"
    assert service.answer() == service.first_answer


def test_a_bit_in_an_object_of_the_dvc_remote(whole: Whole, service: Service, tmp_path: Path) -> None:
    folder = clone(whole, tmp_path / "clone")
    md5 = next(out["md5"] for out in locked(whole)["evaluate"]["outs"])
    objects = whole.home / "s3" / "gapbridge" / "dvc" / "files" / "md5"
    listed = json.loads((objects / md5[:2] / md5[2:]).read_text())
    one = next(entry["md5"] for entry in listed if entry["relpath"] == "predictions.jsonl")
    with flipped(objects / one[:2] / one[2:]):
        done = dvc(folder, "pull", "evaluate")
        assert done.returncode != 0 and "Traceback" not in done.stderr
        print(f"\n{done.stderr}")
        assert "artifacts/evaluate" in done.stderr
        assert not (folder / "artifacts" / "evaluate" / "predictions.jsonl").exists()
        still_serves(service)
    assert dvc(folder, "pull", "-q", "evaluate").returncode == 0


@pytest.mark.parametrize("name", ["metrics/ingest.json", "dvc.lock", "params.yaml"])
def test_a_bit_in_what_mlflow_keeps_of_a_version(whole: Whole, service: Service, name: str) -> None:
    with flipped(whole.stored(name)):
        said = one_line(whole.gapbridge("lineage", f"{MODEL}@champion"))
        assert f"{MODEL} version 1: " in said and "is not what was registered" in said
        print(f"\n{said}")
        still_serves(service)
    assert whole.gapbridge("lineage", f"{MODEL}@champion").returncode == 0


def test_a_bit_in_the_registered_model(whole: Whole, service: Service, tmp_path: Path) -> None:
    own = {"GAPBRIDGE_CACHE": str(tmp_path / "cache")}
    with flipped(whole.stored("model.safetensors")):
        said = one_line(whole.gapbridge("serve", f"{MODEL}@champion", "--port", "0", **own))
        assert f"{MODEL} version 1" in said and "not those that were registered" in said
        print(f"\n{said}")
        still_serves(service)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".safetensors"]


def test_stopping_leaves_no_process(whole: Whole, service: Service) -> None:
    assert service.end() == 0
    whole.call("down")
    deadline = time.monotonic() + 10
    while processes_that_name(whole.checkout) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_that_name(whole.checkout) == []
    for address in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AWS_ENDPOINT_URL"):
        port = int(whole.environment[address].removesuffix("/api").rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
