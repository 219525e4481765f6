"""The checkpoint file: whole or refused, and readable without running code."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gapbridge.errors import ArtifactError
from gapbridge.train import checkpoint
from gapbridge.train.optimiser import Group, Optimiser

from . import tiny


def _optimiser(model: torch.nn.Module) -> Optimiser:
    """Muon for matrices, AdamW for the rest."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    return Optimiser([Group(matrices, 0.01, 0.1, muon=True), Group(others, 0.01, 0.0)], 0.98)


def _trained() -> tuple[tiny.Plain, Optimiser]:
    model = tiny.Plain()
    optimizer = _optimiser(model)
    tiny.loss_of(model, tiny.batch_of(0, 0, 1)).total.backward()
    optimizer.step()
    return model, optimizer


def test_it_brings_back_weights_moments_and_state(tmp_path: Path) -> None:
    model, optimizer = _trained()
    checkpoint.save(tmp_path / "c.safetensors", model, optimizer, {"losses": [0.1, 1 / 3]})
    other = tiny.Plain()
    fresh = _optimiser(other)
    state = checkpoint.restore(tmp_path / "c.safetensors", other, fresh)
    assert state is not None
    assert state["losses"] == [0.1, 1 / 3]
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        names = {"momentum_buffer"} if mine.ndim == 2 else {"step", "exp_avg", "exp_avg_sq"}
        assert set(optimizer.moments(mine)) == set(fresh.moments(theirs)) == names
        assert all(torch.equal(optimizer.moments(mine)[name], fresh.moments(theirs)[name]) for name in names)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    model, optimizer = _trained()
    assert checkpoint.restore(tmp_path / "c.safetensors", model, optimizer) is None


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_or_strange_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.safetensors"
    model, optimizer = _trained()
    checkpoint.save(path, model, optimizer, {})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
        target: torch.nn.Module = model
    else:
        target = tiny.Tiny()
    with pytest.raises(ArtifactError, match="delete it to start again") as raised:
        checkpoint.restore(path, target, _optimiser(target))
    assert "\n" not in str(raised.value)


def test_the_header_is_plain_json(tmp_path: Path) -> None:
    model, optimizer = _trained()
    checkpoint.save(tmp_path / "c.safetensors", model, optimizer, {"losses": []})
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert file.metadata()["state"] == '{"format_version": 1, "losses": []}'
