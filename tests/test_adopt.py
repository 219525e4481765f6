import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapbridge import mirror, tracking
from gapbridge.adopt import adopt
from gapbridge.errors import ArtifactError, InputError
from gapbridge.mirror import open_store
from gapbridge.stages.runner import run_stage

STAGES = ["sources", "ingest"]
SetParams = Callable[..., None]


@pytest.fixture
def home(workspace: Path, checkout: Path) -> Path:
    """A workspace with the tree's code, under DVC, that never ran a stage."""
    shutil.copytree(checkout / "src", workspace / "src", ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    for name, source in params["sources"].items():
        if isinstance(source, dict):
            params["sources"][name] = source | {"rows": 40}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=workspace, check=True)
    return workspace


@pytest.fixture
def elsewhere(home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same workspace on a machine without MLflow, where the first two stages ran."""
    folder = tmp_path_factory.mktemp("elsewhere") / "workspace"
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns(".dvc"))
    with monkeypatch.context() as patched:
        patched.setattr(tracking, "start_mirror", lambda folder: None)
        for stage in STAGES:
            run_stage(stage, workspace=folder)
    return folder


def dvc(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=home, capture_output=True, text=True, check=True
    )
    return done.stdout


def everything(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if ".dvc" not in path.parts}


def test_outs_go_to_dvc_and_runs_to_mlflow(home: Path, elsewhere: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, home / "mlflow.db")
    assert adopt(home, elsewhere) == STAGES
    status = dvc(home, "status", "ingest")
    assert "changed" not in status.replace("always changed", ""), status
    locked = yaml.safe_load((home / "dvc.lock").read_text())["stages"]
    assert {out["path"] for out in locked["ingest"]["outs"]} >= {"artifacts/ingest/texts", "metrics/ingest.json"}
    with open_store(home) as (client, experiment_id):
        runs = {run.info.run_name: run for run in client.search_runs([experiment_id])}
    assert sorted(runs) == ["ingest", "sources"]
    assert runs["ingest"].info.status == "FINISHED"
    assert runs["ingest"].data.metrics["final.sets.texts.rows"] == 40
    assert adopt(home, elsewhere) == STAGES
    with open_store(home) as (client, experiment_id):
        assert len(client.search_runs([experiment_id])) == 2


def test_a_store_that_does_not_answer_is_said_when_dvc_has_the_outs(
    home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    assert adopt(home, elsewhere) == STAGES
    assert (home / "artifacts/ingest/texts").is_dir()
    said = [record.message for record in caplog.records if "MLflow did not take" in record.message]
    assert len(said) == 2 and f"python -m gapbridge.mirror {home / 'runs/sources'}" in said[0]
    with pytest.raises(SystemExit, match=r"error: MLflow did not take .*nonsense"):
        mirror.main([said[0].rstrip("`").split()[-1]])


def change_params(home: Path) -> None:
    path = home / "params.yaml"
    path.write_text(path.read_text().replace("max_bad_fraction: 0.01", "max_bad_fraction: 0.02"))


def change_code(home: Path) -> None:
    with (home / "src/gapbridge/stages/ingest.py").open("a") as file:
        file.write("# changed\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_params, "ingest: ran with ingest.max_bad_fraction 0.01, params.yaml here says 0.02"),
        (change_code, "ingest: ran with other code"),
    ],
)
def test_another_recipe_is_refused_and_nothing_is_changed(
    home: Path, elsewhere: Path, change: Callable[[Path], None], said: str
) -> None:
    change(home)
    before = everything(home)
    with pytest.raises(InputError, match=said):
        adopt(home, elsewhere)
    assert everything(home) == before


def damage(elsewhere: Path) -> None:
    with (elsewhere / "artifacts/ingest/texts/manifest.parquet").open("ab") as file:
        file.write(b"0")


def lose_what_was_read(elsewhere: Path) -> None:
    shutil.rmtree(elsewhere / "runs" / "sources")


def lose_figures(elsewhere: Path) -> None:
    (elsewhere / "metrics" / "ingest.json").unlink()


def change_figures(elsewhere: Path) -> None:
    path = elsewhere / "metrics" / "ingest.json"
    path.write_text(path.read_text().replace("40", "41"))


def read_other_figures(elsewhere: Path) -> None:
    (path,) = (elsewhere / "runs" / "ingest").glob("*/run.json")
    path.write_text(path.read_text().replace('"input.artifacts/sources"', '"input.metrics/sources.json"'))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damage, "artifacts/ingest/texts: is not what its run wrote"),
        (lose_what_was_read, "ingest: read another artifacts/sources than comes along or lies here"),
        (lose_figures, "ingest.json: missing"),
        (change_figures, "metrics/ingest.json: is not what its run wrote"),
        (read_other_figures, "ingest: read another metrics/sources.json than comes along or lies here"),
    ],
)
def test_what_is_not_whole_is_refused_and_nothing_is_changed(
    home: Path, elsewhere: Path, change: Callable[[Path], Any], said: str
) -> None:
    change(elsewhere)
    before = everything(home)
    with pytest.raises(ArtifactError, match=said):
        adopt(home, elsewhere)
    assert everything(home) == before


def test_a_folder_without_runs_is_told(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match="holds no finished run of a stage"):
        adopt(home, tmp_path_factory.mktemp("empty"))
    with pytest.raises(InputError, match="is this workspace"):
        adopt(home, home)
