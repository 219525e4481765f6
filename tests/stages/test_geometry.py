"""The geometry stage: figures on pairs it did not fit, and two pictures with their data."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from gapbridge import artifacts
from gapbridge.align import Alignment
from gapbridge.corpus.manifest import write_manifest
from gapbridge.embeddings.shards import Shards, write_shards
from gapbridge.errors import ArtifactError, InputError
from tests.stages.clouds import WIDTH, write_cloud
from tests.stages.direct import run_directly


class Words:
    """Stands for the encoder's tokenizer; texts of more than six words are cut off."""

    context_length = 6

    def token_counts(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


@pytest.fixture
def aligned(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("gapbridge.stages.geometry.load_words", lambda folder: Words())
    records = [
        {"id": f"texts{i:05d}", "group_id": f"texts scene {i}", "source": "test", "text": "word " * (1 + i % 10)}
        for i in range(1200)
    ]
    write_manifest(workspace / "artifacts/ingest/texts", "text", records, [])
    _write_snapshots(workspace / "artifacts/encoder/snapshots")
    write_cloud(workspace, "texts", "texts", 1200, seed=1)
    write_cloud(workspace, "images", "images", 900, seed=2)
    for side in ("texts", "images"):
        write_cloud(workspace, "probe", side, 200, seed=3)
    run_directly(workspace, "realign")
    return workspace


def _write_snapshots(folder: Path) -> None:
    """Four snapshots of 30 pairs whose gap closes."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("images", "texts", "image_gradients", "text_gradients"):
        arrays = random.normal(size=(4, 30, WIDTH)).astype(np.float32)
        if name == "texts":
            arrays[..., 0] += np.array([4, 3, 2, 1])[:, None]
        np.save(folder / f"{name}.npy", arrays)
    artifacts.write_json(folder / "snapshots.json", {"steps": [1, 10, 20, 30]})


def test_figures_on_the_probe(aligned: Path) -> None:
    probe = run_directly(aligned, "geometry")["probe"]
    folder = aligned / "artifacts/embed/probe"
    images = Shards.open(folder / "images").read(range(200))
    texts = Shards.open(folder / "texts").read(range(200))
    moved = Alignment.load(aligned / "artifacts/realign").apply(texts, [str(i) for i in range(200)])
    assert probe["rows"] == 200
    assert probe["gap_before"] == pytest.approx(np.linalg.norm(texts.mean(0) - images.mean(0)), rel=1e-5)
    assert probe["gap_after"] == pytest.approx(np.linalg.norm(moved.mean(0) - images.mean(0)), rel=1e-4)
    assert probe["gap_after"] < probe["gap_before"] / 5
    assert probe["paired_cosine_after"] > probe["paired_cosine_before"] + 0.1
    assert abs(probe["trace_ratio_after"] - 1) < abs(probe["trace_ratio_before"] - 1)


def test_spectra(aligned: Path) -> None:
    metrics = run_directly(aligned, "geometry")
    table = polars.read_parquet(aligned / "artifacts/geometry/spectra.parquet")
    assert table.columns == ["rank", "image", "text", "aligned"]
    assert table.height == WIDTH
    for side, shape in (("image", metrics["images"]), ("aligned", metrics["methods"]["realign"])):
        assert table[side].sum() == pytest.approx(shape["trace"])
        assert 1 <= shape["effective_rank"] <= WIDTH


def test_the_plane_holds_at_most_the_rows_asked_for(aligned: Path, set_params: Callable[..., None]) -> None:
    set_params(geometry={"rows": 1000})
    metrics = run_directly(aligned, "geometry")
    assert (metrics["sample"]["images"], metrics["sample"]["texts"]) == (900, 1000)
    table = polars.read_parquet(aligned / "artifacts/geometry/plane.parquet")
    assert dict(table["side"].value_counts().iter_rows()) == {"image": 450, "text": 500, "aligned": 500}
    means = {side: table.filter(side=side)["across"].mean() for side in ("image", "text", "aligned")}
    assert means["image"] == pytest.approx(0, abs=1e-6)
    assert means["text"] == pytest.approx(metrics["methods"]["none"]["gap"], rel=1e-3)
    assert abs(means["aligned"]) < means["text"] / 20


def test_pictures_open_and_two_runs_give_the_same_bytes(aligned: Path) -> None:
    first = run_directly(aligned, "geometry"), artifacts.dvc_digest(aligned / "artifacts/geometry")
    assert (run_directly(aligned, "geometry"), artifacts.dvc_digest(aligned / "artifacts/geometry")) == first
    for name in ("spectra", "gap", "cosines", "neighbours", "methods", "sizes", "lengths", "trajectory"):
        with Image.open(aligned / "artifacts/geometry" / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert "Software" not in picture.info


def test_an_alignment_of_another_encoder_is_refused(aligned: Path) -> None:
    for name, side, seed in (("texts", "texts", 1), ("images", "images", 2)):
        write_cloud(aligned, name, side, 300, fingerprint="newer", seed=seed)
    with pytest.raises(ArtifactError, match="alignment: of encoder encoder, but the vectors come from newer"):
        run_directly(aligned, "geometry")


@pytest.mark.parametrize("distinct", [1, 2])
def test_texts_that_are_all_alike_are_refused(aligned: Path, distinct: int) -> None:
    folder = aligned / "artifacts/embed/texts/texts"
    rows = Shards.open(folder).read(range(distinct))[np.arange(40) % distinct]
    write_shards(folder, [([str(i) for i in range(40)], rows)], "encoder", 500)
    with pytest.raises(InputError, match="geometry: the text vectors lie on a point or a line"):
        run_directly(aligned, "geometry")
    assert not (aligned / "artifacts/geometry").exists()


def test_an_alignment_without_an_anchor_is_drawn_too(aligned: Path, set_params: Callable[..., None]) -> None:
    set_params(realign={"method": "none"})
    run_directly(aligned, "realign")
    sample = run_directly(aligned, "geometry")["whole_sample"]
    assert sample["gap_after"] == pytest.approx(sample["gap_before"], rel=1e-3)


def test_training_and_lengths_are_told(aligned: Path) -> None:
    metrics = run_directly(aligned, "geometry")
    table = polars.read_parquet(aligned / "artifacts/geometry/trajectory.parquet")
    assert table["step"].to_list() == [1, 10, 20, 30]
    assert table["gap"].is_sorted(descending=True)
    assert [drift == 0 for drift in table["passive_bias_drift"]] == [False, True, False, False]
    assert metrics["trajectory"]["gap"] == pytest.approx(table["gap"][2:].mean())
    lengths = metrics["lengths"]
    assert lengths["short"]["words"] < lengths["long"]["words"]
    assert lengths["short"]["truncated"] == 0 and lengths["long"]["truncated"] == pytest.approx(0.8)
    page = (aligned / "artifacts/geometry/index.html").read_text()
    assert page.count("data:image/png;base64,") == 8 and "<script" not in page and "http" not in page
    assert [panel["panel"] for panel in metrics["figure_1"]] == ["a", "b", "c", "d"]
    assert all(panel["found"] in page for panel in metrics["figure_1"])


def test_a_pinned_encoder_has_no_training_to_tell_of(aligned: Path) -> None:
    shutil.rmtree(aligned / "artifacts/encoder/snapshots")
    metrics = run_directly(aligned, "geometry")
    assert metrics["trajectory"] is None and metrics["figure_1"] is None
    assert not (aligned / "artifacts/geometry/trajectory.png").exists()
