"""The stage report, whole, on made-up figures and pictures in a user's folder."""

import hashlib
import json
from pathlib import Path

import pytest

from gapbridge.artifacts import model_digest
from gapbridge.corpus.manifest import write_manifest
from gapbridge.errors import ArtifactError
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.probe import read_probe
from gapbridge.mirror import open_store
from gapbridge.registry import Registry
from gapbridge.report.gallery import read_gallery
from gapbridge.stages.runner import run_stage

from ..evaluate.tiny import save_model
from ..report import made_up


@pytest.fixture
def ready(workspace: Path) -> Path:
    """A workspace with everything that report reads."""
    artifacts = workspace / "artifacts"
    records = []
    for line in made_up.predictions():
        file = workspace / f"data/{line['item_id']}.png"
        file.parent.mkdir(exist_ok=True)
        made_up.picture(line["item_id"]).save(file)
        records.append(
            {
                "id": line["item_id"],
                "group_id": line["item_id"],
                "source": "test",
                "image": f"root:data/{file.name}",
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "width": 600,
                "height": 300,
                "benchmark": line["benchmark"],
                "question": line["prompt"],
                "answer": line["answer"],
                "subset": None,
                "novel": line["novel"],
            }
        )
    write_manifest(artifacts / "ingest/benchmark", "question", records, [])
    for folder in ("evaluate", "geometry", "pretrain", "instruct/training"):
        (artifacts / folder).mkdir(parents=True)
    lines = [json.dumps(line) + "\n" for line in made_up.predictions()]
    (artifacts / "evaluate/predictions.jsonl").write_text("".join(lines))
    made_up.plane().write_parquet(artifacts / "geometry/plane.parquet")
    made_up.spectra().write_parquet(artifacts / "geometry/spectra.parquet")
    made_up.losses().write_parquet(artifacts / "pretrain/losses.parquet")
    made_up.losses().write_parquet(artifacts / "instruct/training/losses.parquet")
    made_up.write_metrics(workspace / "metrics", made_up.metrics())
    for name in ("config.json", "model.safetensors"):
        (artifacts / "instruct" / name).write_text(name)
    return workspace


def test_it_writes_page_gallery_and_card(ready: Path) -> None:
    figures = run_stage("report", workspace=ready)
    out = ready / "artifacts/report"
    page = (out / "index.html").read_text()
    assert figures["page_digest"] == hashlib.sha256(page.encode()).hexdigest()
    exhibits = read_gallery(out)
    assert figures["gallery"] == len(exhibits) == len(list((out / "gallery").iterdir()))
    assert page.count("<img ") == len(exhibits)
    assert "Stage 1: the adapter</figcaption>" in page
    assert "Stage 2: dialogues</figcaption>" in page
    assert "Encoder</figcaption>" not in page
    card = (out / "model_card.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert f"`{model_digest(ready / 'artifacts/instruct')}`" in card


def test_the_card_states_the_licence_of_a_pinned_part(ready: Path) -> None:
    folder = ready / "models/one"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    params = ready / "params.yaml"
    params.write_text(params.read_text().replace("llm:\n  pretrained: null", "llm:\n  pretrained: models/one"))
    run_stage("report", workspace=ready)
    card = (ready / "artifacts/report/model_card.md").read_text()
    assert "| language model models/one | apache-2.0 |" in card and "license: other" in card


def test_two_runs_give_the_same_bytes(ready: Path) -> None:
    def outcome() -> dict[str, bytes]:
        run_stage("report", workspace=ready)
        files = (file for file in (ready / "artifacts/report").rglob("*") if file.is_file())
        return {str(file): file.read_bytes() for file in files}

    assert outcome() == outcome()


def test_a_missing_picture_stops_it(ready: Path) -> None:
    for file in (ready / "data").iterdir():
        file.unlink()
    with pytest.raises(ArtifactError, match="run `gapbridge ingest` again"):
        run_stage("report", workspace=ready)
    assert not (ready / "artifacts/report").exists()


@pytest.mark.slow
def test_a_registered_model_has_its_probe_and_passes_it(ready: Path) -> None:
    params = (ready / "params.yaml").read_text()
    (ready / "params.yaml").write_text(params.replace("register_as: null", "register_as: tiny"))
    (ready / "dvc.lock").write_text("schema: '2.0'\n")
    save_model(ready / "artifacts/instruct")
    run_stage("report", workspace=ready)
    with open_store(ready) as (client, _):
        client.set_registered_model_alias("tiny", "champion", "1")
    registry = Registry(ready)
    folder = registry.fetch(registry.resolve("tiny@champion"), ready / "cache")
    probe = read_probe(folder)
    assert probe is not None and len(probe.questions) == 8
    assert set(probe.questions) <= {line["prompt"] for line in made_up.predictions()}
    assert probe.differing(Predictor.load(folder)) == []
