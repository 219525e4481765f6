"""The realign stage: its figures, its folder, and vectors that do not belong together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gapbridge import artifacts
from gapbridge.align import Alignment
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError
from tests.stages.clouds import WIDTH, write_cloud
from tests.stages.direct import run_directly

KEYS = {
    "n_texts", "n_images", "width", "text_trace", "image_trace", "scale", "gap_before", "gap_after", "gap_heldout",
    "sampling_floor", "method",
}  # fmt: skip


@pytest.fixture
def embedded(workspace: Path) -> Path:
    write_cloud(workspace, "texts", "texts", 1200, seed=1)
    write_cloud(workspace, "images", "images", 900, seed=2, group_rows=3)
    return workspace


def test_the_gap_closes(embedded: Path) -> None:
    metrics = run_directly(embedded, "realign")
    assert metrics.keys() >= KEYS
    assert (metrics["n_texts"], metrics["n_images"], metrics["width"]) == (1080, 810, WIDTH)
    assert metrics["gap_before"] > 0.3
    assert metrics["gap_after"] < metrics["gap_before"] / 50
    assert metrics["gap_heldout"] < 1.5 * metrics["sampling_floor"]
    assert metrics["effective_images_heldout"] == pytest.approx(30)


def test_the_folder_is_an_alignment_of_these_shards(embedded: Path) -> None:
    metrics = run_directly(embedded, "realign")
    alignment = Alignment.load(embedded / "artifacts/realign", WIDTH, "encoder")
    assert alignment.scale == metrics["scale"]
    texts = Shards.open(embedded / "artifacts/embed/texts/texts")
    assert alignment.sources["texts"] == list(texts.digests)
    moved = alignment.apply(texts.read(range(texts.rows)), texts.ids)
    assert np.linalg.norm(moved.mean(axis=0) - alignment.image_mean) < 0.05


def test_method_and_holdout_come_from_params(embedded: Path, set_params: Callable[..., None]) -> None:
    set_params(realign={"method": "anchor", "holdout": 0.0})
    metrics = run_directly(embedded, "realign")
    assert (metrics["method"], metrics["scale"], metrics["n_texts"]) == ("anchor", 1.0, 1200)
    assert metrics["gap_heldout"] is None and metrics["sampling_floor"] is None


def test_steps_and_noise_come_from_params(embedded: Path, set_params: Callable[..., None]) -> None:
    set_params(realign={"holdout": 0.0, "centroid_iterations": 3})
    assert run_directly(embedded, "realign")["centroid_iterations"] == 3
    set_params(realign={"method": "c3", "noise": 0.125})
    run_directly(embedded, "realign")
    assert Alignment.load(embedded / "artifacts/realign").noise == 0.125


def test_two_runs_give_the_same_bytes(embedded: Path) -> None:
    first = run_directly(embedded, "realign"), artifacts.dvc_digest(embedded / "artifacts/realign")
    assert (run_directly(embedded, "realign"), artifacts.dvc_digest(embedded / "artifacts/realign")) == first


def test_the_seed_chooses_the_groups(embedded: Path) -> None:
    first = run_directly(embedded, "realign")["gap_heldout"]
    path = embedded / "params.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 2", 1))
    assert run_directly(embedded, "realign")["gap_heldout"] != first


def test_vectors_of_two_encoders_are_refused(workspace: Path) -> None:
    write_cloud(workspace, "texts", "texts", 50)
    write_cloud(workspace, "images", "images", 50, fingerprint="another")
    with pytest.raises(ArtifactError, match="of encoder another, expected encoder"):
        run_directly(workspace, "realign")
    assert not (workspace / "artifacts/realign").exists()


def test_missing_vectors_name_the_stage(workspace: Path) -> None:
    with pytest.raises(ArtifactError, match="artifacts/embed/texts/texts: missing"):
        run_directly(workspace, "realign")
