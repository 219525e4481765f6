"""`gapbridge benchmark` on a registered model of random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from mlflow.artifacts import download_artifacts

from gapbridge.benchmark import benchmark
from gapbridge.cli import cli
from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model_package import register
from gapbridge.params import load_params
from gapbridge.registry import Registry

from .evaluate.tiny import unit_vectors
from .stages.asked import write_asked
from .stages.direct import run_directly


@pytest.fixture
def registered(workspace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose model was evaluated and registered as `tiny`."""
    shutil.copyfile(empty_store, workspace / "mlflow.db")
    write_asked(workspace)
    monkeypatch.chdir(workspace)
    (workspace / "dvc.lock").write_text("stages: {}")
    (workspace / "card.md").write_text("# card")
    register(workspace, "tiny", workspace / "artifacts/instruct", workspace / "card.md")
    return workspace


def test_its_figures_are_those_of_the_stage_and_mlflow_keeps_them(registered: Path) -> None:
    expected = run_directly(registered, "evaluate")
    shutil.rmtree(registered / "artifacts/instruct")  # the registered copy is scored, not what lies here
    torch.set_num_threads(2)
    scored = benchmark(registered, "tiny", load_params(registered / "params.yaml"))
    assert json.loads(json.dumps(scored.figures)) == json.loads(json.dumps(expected))
    assert torch.get_num_threads() == 1, "as the stage has it: rounding may depend on it"
    assert (scored.model, scored.version, scored.folder) == ("tiny", 1, Path("runs/benchmark/tiny-1"))
    for name in ("predictions.jsonl", "predictions_blind.jsonl"):
        assert (registered / scored.folder / name).read_bytes() == (
            registered / "artifacts/evaluate" / name
        ).read_bytes()
    registry = Registry(registered)
    run = registry.client.get_run(scored.run_id)
    uri = f"sqlite:///{registered / 'mlflow.db'}"
    assert (run.info.run_name, run.info.status) == ("benchmark", "FINISHED")
    assert (run.data.tags["model"], run.data.tags["model.version"]) == ("tiny", "1")
    assert run.data.metrics["final.benchmarks.pope.score"] == pytest.approx(expected["benchmarks"]["pope"]["score"])
    assert run.data.metrics["final.average_blind"] == pytest.approx(expected["average_blind"])
    kept = Path(download_artifacts(run_id=scored.run_id, artifact_path="benchmark", tracking_uri=uri))
    assert {path.name for path in kept.iterdir()} == {"figures.json", "predictions.jsonl", "predictions_blind.jsonl"}
    assert json.loads((kept / "figures.json").read_text())["average"] == expected["average"]
    assert "pope" in scored.text() and "tiny version 1: " in scored.text()


def test_a_model_of_another_encoder_is_refused_in_one_line(registered: Path) -> None:
    for place in ("benchmark", "images"):
        folder = registered / "artifacts/embed" / place / "images"
        shutil.rmtree(folder)
        write_shards(folder, [(["a"], unit_vectors(1))], "another", 100)
    message = r"^tiny version 1: reads vectors of encoder f, those embedded come from another; run `dvc repro`"
    with pytest.raises(ArtifactError, match=message) as caught:
        benchmark(registered, "tiny/1", load_params(registered / "params.yaml"))
    assert "\n" not in str(caught.value) and not (registered / "runs/benchmark/tiny-1").exists()


@pytest.mark.parametrize("reference", ["tiny@champion", "tiny/7", "another", "tiny/x"])
def test_what_is_not_registered_is_one_line_and_a_status(reference: str, registered: Path) -> None:
    with pytest.raises(InputError) as caught:
        benchmark(registered, reference, load_params(registered / "params.yaml"))
    assert "\n" not in str(caught.value)
    done = CliRunner().invoke(cli, ["benchmark", reference])
    assert done.exit_code != 0 and isinstance(done.exception, (InputError, SystemExit))


def test_without_benchmarks_here_it_says_what_to_run(registered: Path) -> None:
    shutil.rmtree(registered / "artifacts/ingest")
    with pytest.raises(ArtifactError, match=r"artifacts/ingest/benchmark: missing; run `dvc repro evaluate`"):
        benchmark(registered, "tiny", load_params(registered / "params.yaml"))
