"""The tiny dual encoder: it learns, gives the same bytes twice, and is an ordinary open_clip model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gapbridge.embeddings.encoders import open_pretrained
from gapbridge.errors import TrainingError
from gapbridge.train.contrastive import (
    Architecture,
    Recipe,
    Trained,
    as_pixels,
    consistency_loss,
    contrastive_loss,
    save_model,
    train_contrastive,
)
from gapbridge.train.pairs import Batches, Mixing, Pairs
from gapbridge.train.tokens import train_tokenizer

ARCHITECTURE = Architecture(32, 32, 10, 300, 70.0)
COLORS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 220), "white": (250, 250, 250)}


def mixing(**changes: Any) -> Mixing:
    settings = {"steps": 40, "batch_size": 16, "group_rows": 4, "wording_fraction": 0.5, "wording_weight": 0.1}
    return Mixing(**{**settings, **changes})


def recipe(learning_rate: float = 2e-3, **changes: Any) -> Recipe:
    return Recipe(mixing(**changes), learning_rate, 0.05, 0.05, 0.98, 1.0)


def patch(color: str, random: np.random.Generator) -> Image.Image:
    noise = random.integers(-20, 20, (40, 48, 3))
    return Image.fromarray((np.array(COLORS[color]) + noise).clip(0, 255).astype(np.uint8))


def pairs(count: int = 64, seed: int = 0) -> Pairs:
    random = np.random.default_rng(seed)
    colors = [list(COLORS)[row % len(COLORS)] for row in range(count)]
    pictures = as_pixels((patch(color, random) for color in colors), count, ARCHITECTURE)
    texts = [f"{'all' if random.random() < 0.5 else 'a field of'} {color}" for color in colors]
    return Pairs(pictures, texts, [f"patch {row}" for row in range(count)])


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train_contrastive(pairs(), pairs(8, seed=9), ARCHITECTURE, recipe(), 0, 3)


@pytest.fixture(scope="module")
def stored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_model(folder, trained.model, trained.tokenizer, ARCHITECTURE)
    trained.snapshots.save(folder / "snapshots")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_finds_the_right_text_for_new_pictures(stored: Path) -> None:
    encoder, random = open_pretrained(f"local-dir:{stored}"), np.random.default_rng(5)
    images = encoder.encode_images([patch(color, random) for color in COLORS for _ in range(5)])
    texts = encoder.encode_texts([f"all {color}" for color in COLORS])
    assert ((images @ texts.T).argmax(1) == np.repeat(range(len(COLORS)), 5)).mean() >= 0.9


def test_the_same_seed_gives_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    again = train_contrastive(pairs(), pairs(8, seed=9), ARCHITECTURE, recipe(), 0, 3)
    save_model(tmp_path, again.model, again.tokenizer, ARCHITECTURE)
    again.snapshots.save(tmp_path / "snapshots")
    assert files(tmp_path) == files(stored)


def test_another_seed_gives_another_model(trained: Trained) -> None:
    other = train_contrastive(pairs(), pairs(0), ARCHITECTURE, recipe(steps=1), 1, 3)
    assert other.snapshots is None
    assert not torch.equal(other.model.text_projection, trained.model.text_projection)


def test_looking_at_the_probe_changes_nothing(trained: Trained) -> None:
    unseen = train_contrastive(pairs(), pairs(0), ARCHITECTURE, recipe(), 0, 3)
    for name, values in unseen.model.state_dict().items():
        assert torch.equal(values, trained.model.state_dict()[name]), name


def test_the_temperature_stays(trained: Trained) -> None:
    assert trained.model.logit_scale.exp().item() == pytest.approx(70)


def test_the_last_snapshot_is_what_the_stored_model_says(trained: Trained, stored: Path) -> None:
    """Also: texts cut at the longest one of a batch give what open_clip gives at full length."""
    probe, encoder = pairs(8, seed=9), open_pretrained(f"local-dir:{stored}")
    texts = np.load(stored / "snapshots" / "texts.npy", allow_pickle=False)
    images = np.load(stored / "snapshots" / "images.npy", allow_pickle=False)
    assert trained.snapshots.steps == [1, 20, 40]
    assert texts.shape == images.shape == (3, 8, 32)
    pictures = [Image.fromarray(rows) for rows in probe.pictures.permute(0, 2, 3, 1).numpy()]
    np.testing.assert_allclose(texts[-1], encoder.encode_texts(probe.texts), atol=1e-5)
    np.testing.assert_allclose(images[-1], encoder.encode_images(pictures), atol=1e-5)
    assert np.abs(texts[0] - texts[-1]).max() > 0.1


def test_snapshot_gradients_are_those_of_the_loss(stored: Path) -> None:
    load = {
        name: np.load(stored / "snapshots" / f"{name}.npy", allow_pickle=False)[1].astype(np.float64)
        for name in ("images", "texts", "image_gradients", "text_gradients")
    }
    direction = np.random.default_rng(0).normal(size=load["images"].shape)

    def loss(step: float) -> float:
        moved = torch.from_numpy(load["images"] + step * direction)
        return contrastive_loss(moved, torch.from_numpy(load["texts"]), 70.0).item()

    expected = (load["image_gradients"] * direction).sum()
    assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(expected, rel=1e-3)


def test_excluded_pairs_cost_nothing() -> None:
    rows = torch.eye(3)
    wrong = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    twins = torch.zeros(3, 3, dtype=torch.bool)
    twins[0, 2] = twins[2, 0] = True
    assert contrastive_loss(rows, rows, 50.0) < 1e-6
    assert contrastive_loss(rows, wrong, 50.0) > 1
    alone = contrastive_loss(rows, wrong, 50.0, twins)
    kept = (50.0 * rows @ wrong.T).masked_fill(twins, -1e9)
    assert alone == pytest.approx((-kept.log_softmax(1).diag().mean() - kept.log_softmax(0).diag().mean()).item() / 2)


def test_consistency_knows_a_shift_from_a_turn() -> None:
    """Sides whose rows differ by one vector cost nothing; a turn or a stretch does."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 5, generator=random, dtype=torch.float64)
    spread = rows - rows.mean(dim=0)
    axis = torch.zeros(12, 2, dtype=torch.float64)
    images = torch.cat([spread, axis + torch.tensor([3.0, 0.0])], dim=1)
    texts = torch.cat([spread, axis + torch.tensor([0.0, 3.0])], dim=1)
    assert consistency_loss(images, texts) < 1e-20
    turned = texts.clone()
    turned[:, :3] = texts[:, :3].roll(1, dims=1)
    assert consistency_loss(images, turned) > 1
    assert consistency_loss(images, texts * 1.1) > 1


def test_consistency_brings_the_sides_together() -> None:
    def distance(weight: float) -> float:
        steps = replace(recipe(), consistency_weight=weight)
        snapshots = train_contrastive(pairs(), pairs(16, seed=9), ARCHITECTURE, steps, 0, 1).snapshots
        images, texts = (torch.from_numpy(snapshots.arrays[name][-1]) for name in ("images", "texts"))
        return (images - images.mean(dim=0) - texts + texts.mean(dim=0)).square().sum(dim=1).mean().item()

    assert distance(1.0) < distance(0.0) / 2


@pytest.fixture(scope="module")
def batches() -> Callable[..., Batches]:
    data = pairs(22)
    tokenizer = train_tokenizer(data.texts, 300, chat=False)
    return lambda **changes: Batches(data, tokenizer, 10, mixing(**changes), 0)


def rows_of(batch: dict[str, Any], data: Pairs) -> list[int]:
    """The record of each picture in the batch."""
    return [next(i for i, known in enumerate(data.pictures) if torch.equal(known, one)) for one in batch["pictures"]]


def test_consecutive_records_stay_together_and_a_pass_holds_all(batches: Callable[..., Batches]) -> None:
    data, make = pairs(22), batches(steps=None, batch_size=8)
    assert make.steps == 3
    rows = [row for step in range(3) for row in rows_of(make(step, 0, 1), data)]
    assert all(rows[i + j] == rows[i] + j for i in range(0, 24, 4) for j in range(4))
    assert set(rows) == set(range(22))
    assert rows != sorted(rows)


def test_ranks_share_one_batch(batches: Callable[..., Batches]) -> None:
    data, make = pairs(22), batches(batch_size=16)
    whole = rows_of(make(1, 0, 1), data)
    parts = [rows_of(make(1, rank, 2), data) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_pairs_of_one_text_are_no_negatives(batches: Callable[..., Batches]) -> None:
    data, make = pairs(22), batches(batch_size=16)
    batch = make(0, 0, 1)
    texts = [data.texts[row] for row in rows_of(batch, data)]
    expected = [[i != j and texts[i] == texts[j] for j in range(16)] for i in range(16)]
    assert batch["excluded"].tolist() == expected


def test_wordings_are_asked_for_early_and_say_what_the_text_holds(batches: Callable[..., Batches]) -> None:
    data, make = pairs(22), batches(steps=4, wording_fraction=0.5)
    assert [make(step, 0, 1)["wording_weight"] for step in range(4)] == [0.1, 0.1, 0, 0]
    batch = make(0, 0, 1)
    marks = map(tuple, batch["wordings"].tolist())
    held = list(zip((data.texts[row] for row in rows_of(batch, data)), marks, strict=True))
    assert len({text for text, _ in held}) == len(set(held)) > 1


def test_it_stops_where_the_loss_is_no_number() -> None:
    with pytest.raises(TrainingError, match="encoder step"):
        train_contrastive(pairs(), pairs(0), ARCHITECTURE, recipe(learning_rate=1e30), 0, 1)


def test_where_bf16_is_the_rule_it_trains_in_fp32(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapbridge.train.loop.in_bf16", lambda precision: precision != "fp32")  # as on a GPU
    again = train_contrastive(pairs(), pairs(0), ARCHITECTURE, recipe(), 0, 3)
    assert again.history.losses == trained.history.losses
