import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gapbridge import artifacts, mirror, tracking
from gapbridge.errors import ArtifactError
from gapbridge.mirror import open_store
from gapbridge.model_package import register


def runs_in(workspace: Path) -> list[Any]:
    with open_store(workspace) as (client, experiment_id):
        return client.search_runs([experiment_id])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts" / "realign"
    (folder / "deep").mkdir(parents=True)
    (folder / "numbers.json").write_text("{}")
    (folder / "deep" / "figure.png").write_bytes(b"png")
    (folder / "weights.safetensors").write_bytes(b"0" * 9)
    return folder


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)


def test_a_run_is_files_first(tmp_path: Path, out: Path, without_mlflow: None) -> None:
    with tracking.open_tracker(tmp_path, "realign", {"realign": {"method": "none"}}, {"a": "1"}) as tracker:
        tracker.log_metrics({"loss": 2}, step=1)
        tracker.finish({"artifacts/realign": out}, {"gap": {"before": 0.4}})
    (folder,) = (tmp_path / "runs" / "realign").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["params"] == {"realign.method": "none"} and record["tags"]["input.a"] == "1"
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["values"] == {"loss": 2.0}
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "FINISHED" and status["metrics"] == {"gap": {"before": 0.4}}
    assert status["outputs"] == {"artifacts/realign": artifacts.dvc_digest(out)}
    assert not (tmp_path / "mlflow.db").exists()


def test_a_failed_stage_leaves_a_failed_run(tmp_path: Path, without_mlflow: None) -> None:
    with (
        pytest.raises(ArtifactError),
        tracking.open_tracker(tmp_path, "realign", {}, {}),
    ):
        raise ArtifactError("shard 3:\n damaged")
    (folder,) = (tmp_path / "runs" / "realign").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert (status["status"], status["error"]) == ("FAILED", "ArtifactError: shard 3: damaged")


def test_a_stage_that_runs_always_is_kept_when_it_has_news(tmp_path: Path, out: Path, without_mlflow: None) -> None:
    def run(params: dict[str, Any]) -> int:
        with tracking.open_tracker(tmp_path, "sources", params, {}, only_news=True) as tracker:
            tracker.finish({"artifacts/realign": out}, {})
        return len(list((tmp_path / "runs" / "sources").iterdir()))

    assert [run({}), run({}), run({"rows": 1})] == [1, 1, 2]
    (out / "numbers.json").write_text("{ }")
    assert run({"rows": 1}) == 3


def test_dirty_leaves_out_what_is_recorded_by_digest(tmp_path: Path) -> None:
    assert tracking.git_tags(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "empty"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "params.yaml").write_text("seed: 1")
    (tmp_path / "dvc.lock").write_text("")
    assert tracking.git_tags(tmp_path)["git.dirty"] == "false"
    (tmp_path / "code.py").write_text("")
    assert tracking.git_tags(tmp_path)["git.dirty"] == "true"
    (tmp_path / "code.py").unlink()
    (tmp_path / ".git" / "index").write_text("damaged")
    assert tracking.git_tags(tmp_path)["git.dirty"] == "true", "git status fails"


def test_mlflow_has_the_same_and_two_stages_may_start_at_once(tmp_path: Path, out: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gapbridge import tracking\n"
        "workspace, label = Path(sys.argv[1]), sys.argv[2]\n"
        "with tracking.open_tracker(workspace, label, {'a': {'b': [1]}}, {'x': 'digest'}) as tracker:\n"
        "    for step in range(30): tracker.log_metrics({'loss': 1 / (step + 1)}, step)\n"
        "    figures = {'gap': 0.5, 'name': 'n', 'the row [0] is a user\\u0027s': 2}\n"
        "    tracker.finish({'artifacts/realign': workspace / 'artifacts/realign'}, figures)\n"
    )
    stages = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), label], stderr=subprocess.PIPE, text=True)
        for label in ("encoder", "llm")
    ]
    assert [stage.communicate()[1] for stage in stages] == ["", ""]
    runs = {run.info.run_name: run for run in runs_in(tmp_path)}
    assert sorted(runs) == ["encoder", "llm"]
    run = runs["encoder"]
    assert run.info.status == "FINISHED" and run.data.params == {"a.b": "[1]"}
    assert run.data.metrics == {"loss": pytest.approx(1 / 30), "final.gap": 0.5, "final.the row _0_ is a user_s": 2}
    assert run.data.tags["stage"] == "encoder" and run.data.tags["input.x"] == "digest"
    assert run.data.tags["output.artifacts/realign"] == artifacts.dvc_digest(out)
    kept = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (kept / "figures" / "realign" / "deep" / "figure.png").read_bytes() == b"png"
    assert not list(kept.rglob("*.safetensors"))
    with open_store(tmp_path) as (client, _):
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 30


def test_a_killed_stage_leaves_a_killed_run(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    program = (
        "import sys, time; from pathlib import Path; from gapbridge import tracking\n"
        "with tracking.open_tracker(Path(sys.argv[1]), 'pretrain', {}, {}): print('up', flush=True); time.sleep(60)\n"
    )
    stage = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert stage.stdout is not None and stage.stdout.readline() == b"up\n"
    time.sleep(0.5)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    stage.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(run.info.status == "KILLED" for run in runs_in(tmp_path)):
        time.sleep(0.2)
    assert [run.info.status for run in runs_in(tmp_path)] == ["KILLED"]


def test_more_figures_than_mlflow_takes_at_once_all_arrive(tmp_path: Path, out: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with tracking.open_tracker(tmp_path, "evaluate", {}, {}) as tracker:
        tracker.finish({"artifacts/realign": out}, {f"figure {number}": number for number in range(1050)})
    (run,) = runs_in(tmp_path)
    assert run.info.status == "FINISHED" and len(run.data.metrics) == 1050
    assert run.data.metrics["final.figure 1049"] == 1049 and "output.artifacts/realign" in run.data.tags


def test_a_run_that_is_sent_again_leaves_no_other_that_seems_to_run(
    tmp_path: Path, out: Path, empty_store: Path, without_mlflow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.open_tracker(tmp_path, "realign", {}, {}) as tracker:
        tracker.finish({"artifacts/realign": out}, {})
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    monkeypatch.undo()
    (folder,) = (tmp_path / "runs" / "realign").iterdir()

    def unreachable(*arguments: object, **named: object) -> None:
        raise ConnectionError("the store is gone")

    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient.log_artifact", unreachable)
        with pytest.raises(SystemExit, match="the store is gone"):
            mirror.main([str(folder)])
    assert [run.info.status for run in runs_in(tmp_path)] == ["RUNNING"]
    mirror.main([str(folder)])
    assert sorted(run.info.status for run in runs_in(tmp_path)) == ["FAILED", "FINISHED"]


def test_a_store_that_does_not_answer_is_said_and_does_not_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with tracking.open_tracker(tmp_path, "realign", {}, {}) as tracker:
        tracker.finish({}, {})
    assert "MLflow did not take this run" in caplog.text


def test_registering_copies_the_model_and_what_made_it(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    model = tmp_path / "artifacts" / "instruct"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    card = tmp_path / "card.md"
    with pytest.raises(ArtifactError, match=r"card\.md: missing"):
        register(tmp_path, "tiny", model, card)
    for path in (card, tmp_path / "dvc.lock", tmp_path / "params.yaml"):
        path.write_text(path.name)
    assert [register(tmp_path, "tiny", model, card) for _ in range(2)] == [1, 2]
    (model / "config.json").unlink()
    with open_store(tmp_path) as (client, _):
        version = client.get_model_version("tiny", "1")
    copy = Path(version.source.removeprefix("file://"))
    assert sorted(path.name for path in copy.iterdir()) == ["README.md", "config.json", "dvc.lock", "params.yaml"]
    assert (copy / "README.md").read_text() == "card.md"
