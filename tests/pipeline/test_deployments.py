"""The deployments of prefect.yaml on a real server with a real worker: schedules, the trigger, cancelling, kills."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import PAIR, environment
from .served import ENDED, free_port, number_in, prefect_server, runs, stopped_after, wait_for

ROOT = Path(__file__).resolve().parents[2]
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
CANCEL_SECONDS = 15

pytestmark = pytest.mark.slow


class Team:
    """A checkout with a toy pipeline, deployed, and a worker that runs what is due."""

    def __init__(self, folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
        self.folder, self.checkout, self.environment, self.stack = folder, folder / "checkout", environment, stack
        self.port = free_port()
        self.begin_server()
        self.workers: list[subprocess.Popen[bytes]] = []

    def begin_server(self) -> None:
        """Start the server; ends with the test."""
        self.serving = ExitStack()
        self.server = self.serving.enter_context(prefect_server(self.folder, self.environment, self.port))
        self.environment["PREFECT_API_URL"] = self.server.address
        self.stack.push(self.serving)

    def restart_server(self) -> None:
        """Stop it and start it again where it was."""
        self.serving.close()
        self.begin_server()

    def begin_worker(self) -> None:
        """Start a worker; ends with the test."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gapbridge", "--type", "process"]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(command, cwd=self.checkout, env=self.environment, stdout=log, stderr=log)
        self.workers.append(self.stack.enter_context(stopped_after(worker)))

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.checkout, env=self.environment | {"PWD": str(self.checkout)}, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def commit(self, script: str) -> None:
        """Make that what the stage `last` does; runs work in clones of the commit."""
        (self.checkout / "last.sh").write_text(script)
        self.call(*GIT, "commit", "-qam", "another script")

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.server.post("deployments/filter")}

    def start(self, deployment: str, **parameters: Any) -> str:
        """The id of a new flow run."""
        number = self.deployments()[deployment]["id"]
        wanted = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return self.server.post(f"deployments/{number}/create_flow_run", wanted)["id"]

    def state(self, run: str) -> tuple[str, str, str]:
        """Type, name and message of a flow run's state."""
        state = self.server.get(f"flow_runs/{run}")["state"]
        return state["type"], state["name"], state["message"] or ""

    def ended(self, run: str, seconds: float = 120) -> tuple[str, str, str]:
        """The same, when it has ended."""
        wait_for(lambda: self.state(run)[0] in ENDED, seconds)
        return self.state(run)


def deployments() -> str:
    """Those of the tree, with a shorter patience: a run gives a sign of life every 30 s here."""
    text = (ROOT / "prefect.yaml").read_text()
    assert text.count("within: 600") == 1
    return text.replace("within: 600", "within: 50")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    checkout = folder / "checkout"
    checkout.mkdir()
    shutil.copytree(ROOT / "flows", checkout / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    files = {"dvc.yaml": PAIR, "params.yaml": "report: {register_as: null}\n", "in": "1",
             "last.sh": "cp o/first o/last", ".gitignore": "/o/\n/.stack/\n", ".dvcignore": "/.stack/\n",
             "prefect.yaml": deployments()}  # fmt: skip
    for name, text in files.items():
        (checkout / name).write_text(text)
    env = environment(folder) | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "30"
    env["PYTHONPATH"] = f"{checkout}{os.pathsep}{ROOT / 'src'}"
    with ExitStack() as stack:
        team = Team(folder, env, stack)
        team.call("git", "init", "-q")
        team.call(sys.executable, "-m", "dvc", "init", "-q")
        team.call("git", "add", "-A")
        team.call(*GIT, "commit", "-qm", "toy")
        team.begin_worker()
        wait_for(lambda: team.server.post("work_pools/filter"), 60)
        team.call(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all")
        yield team


def test_what_has_a_schedule_gets_runs(team: Team) -> None:
    declared = {one["name"]: one for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert set(team.deployments()) == set(declared)
    for name, one in team.deployments().items():
        known = [(s["schedule"]["cron"], s["schedule"]["timezone"]) for s in one["schedules"]]
        assert known == [(s["cron"], s["timezone"]) for s in declared[name].get("schedules", [])]
        assert one["tags"] == declared[name]["tags"]
    scheduled = {name for name, one in declared.items() if "schedules" in one}

    def due() -> set[str]:
        query = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 200}
        names = {one["id"]: name for name, one in team.deployments().items()}
        return {names[run["deployment_id"]] for run in team.server.post("flow_runs/filter", query)}

    wait_for(lambda: due() >= scheduled, 60)
    assert due() == scheduled == {"weekly", "daily", "nightly"}


def test_a_completed_train_starts_promote(team: Team) -> None:
    run = team.start("weekly")
    assert team.ended(run)[:2] == ("COMPLETED", "Completed")
    query = {"deployments": {"name": {"any_": ["after-train"]}}, "limit": 10}
    wait_for(lambda: team.server.post("flow_runs/filter", query), 60)
    (promoting,) = team.server.post("flow_runs/filter", query)
    state = team.ended(promoting["id"])
    assert state[:2] == ("COMPLETED", "Unchanged") and "report.register_as" in state[2]
    ended, begun = (
        datetime.fromisoformat(text) for text in (team.server.get(f"flow_runs/{run}")["end_time"], promoting["created"])
    )
    print(f"\npromote was started {(begun - ended).total_seconds():.1f} s after train ended")
    # What promote and others do starts nothing further.
    assert len(team.server.post("flow_runs/filter", query)) == 1


def test_cancelling_stops_the_stage_and_its_children_and_the_next_run_goes_on(team: Team, tmp_path: Path) -> None:
    team.commit(f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/pid; wait")
    run = team.start("weekly")
    stage, child = number_in(tmp_path / "pid"), number_in(tmp_path / "child")
    team.server.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    seconds = wait_for(lambda: not runs(stage) and not runs(child), CANCEL_SECONDS)
    print(f"\nstage and child were gone {seconds:.1f} s after the run was cancelled")
    assert team.ended(run)[0] == "CANCELLED"
    assert not list((team.checkout / ".stack/workspaces").glob("*"))
    team.commit("cp o/first o/last; echo 2 >> o/last")
    after = team.start("weekly")
    assert team.ended(after)[0] == "COMPLETED"
    assert team.server.tasks(after, 2)["first"]["state"]["name"] == "Cached"


def test_a_flow_that_was_killed_is_crashed_its_stage_ends_and_the_next_run_goes_on(team: Team, tmp_path: Path) -> None:
    # DVC ends with the flow; this stage, like those of gapbridge, ends with DVC.
    bound = f"{sys.executable} -c 'import ctypes, time; ctypes.CDLL(None).prctl(1, 9); time.sleep(300)'"
    team.commit(f"echo $$ > {tmp_path}/pid; exec {bound}")
    run = team.start("weekly")
    stage = number_in(tmp_path / "pid")
    dvc = parent(stage)
    flow = parent(dvc)
    os.kill(flow, signal.SIGKILL)
    wait_for(lambda: not runs(dvc), 10)
    assert team.ended(run)[0] == "CRASHED"
    assert len([path for path in (team.checkout / ".stack/workspaces").iterdir() if path.is_dir()]) == 1
    team.commit("cp o/first o/last; echo 3 >> o/last")
    assert team.ended(team.start("weekly"))[0] == "COMPLETED"
    cleaned = team.start("nightly", workspace=".", apply=True)
    assert team.ended(cleaned)[0] == "COMPLETED", team.state(cleaned)
    assert not list((team.checkout / ".stack/workspaces").iterdir())


def parent(pid: int) -> int:
    """The process that started this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_worker_that_was_killed_takes_its_run_along_and_the_next_run_goes_on(team: Team, tmp_path: Path) -> None:
    team.commit(f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/pid; wait")
    run = team.start("weekly")
    stage, child = number_in(tmp_path / "pid"), number_in(tmp_path / "child")
    team.workers[-1].kill()
    seconds = wait_for(lambda: not runs(stage) and not runs(child), 60)
    print(f"\nstage and child were gone {seconds:.1f} s after the worker was killed")
    assert team.ended(run)[0] == "CRASHED"
    team.begin_worker()
    team.commit("cp o/first o/last; echo 4 >> o/last")
    assert team.ended(team.start("weekly"))[0] == "COMPLETED"


def test_a_run_that_was_killed_with_its_worker_is_marked_as_crashed(team: Team, tmp_path: Path) -> None:
    team.commit(f"echo $$ > {tmp_path}/pid; sleep 300")
    run = team.start("weekly")
    stage = number_in(tmp_path / "pid")
    flow = parent(parent(stage))
    team.workers[-1].send_signal(signal.SIGSTOP)  # as when the machine goes: neither can say a word
    os.kill(flow, signal.SIGKILL)
    team.workers[-1].kill()
    team.begin_worker()
    assert team.state(run)[0] == "RUNNING"
    seconds = wait_for(lambda: team.state(run)[0] == "CRASHED", 240)
    assert "no sign of life" in team.state(run)[2]
    print(f"\na lost run was marked as crashed {seconds:.0f} s later")
    team.commit("cp o/first o/last; echo 6 >> o/last")
    assert team.ended(team.start("weekly"))[0] == "COMPLETED"


def test_a_server_that_was_restarted_during_a_run_is_told_how_it_ended(team: Team, tmp_path: Path) -> None:
    team.commit(f"echo $$ > {tmp_path}/pid; sleep 30; cp o/first o/last; echo 5 >> o/last")
    run = team.start("weekly")
    number_in(tmp_path / "pid")
    team.restart_server()
    assert team.state(run)[0] == "RUNNING"
    assert team.ended(run)[0] == "COMPLETED"
    assert team.ended(team.start("weekly"))[0] == "COMPLETED"
