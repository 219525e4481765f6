"""The checkpoint file: whole or refused, and readable without running code."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gapbridge.errors import ArtifactError
from gapbridge.train import checkpoint

from . import tiny


def _trained() -> tuple[tiny.Plain, torch.optim.AdamW]:
    model = tiny.Plain()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tiny.loss_of(model, tiny.batch_of(0, 0, 1)).total.backward()
    optimizer.step()
    return model, optimizer


def test_it_brings_back_weights_moments_and_state(tmp_path: Path) -> None:
    model, optimizer = _trained()
    checkpoint.save(tmp_path / "c.safetensors", model, optimizer, {"losses": [0.1, 1 / 3]})
    other = tiny.Plain()
    fresh = torch.optim.AdamW(other.parameters(), fused=True)
    state = checkpoint.restore(tmp_path / "c.safetensors", other, fresh)
    assert state is not None
    assert state["losses"] == [0.1, 1 / 3]
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][moment], fresh.state[theirs][moment])
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
        checkpoint.restore(path, target, torch.optim.AdamW(target.parameters(), fused=True))
    assert "\n" not in str(raised.value)


def test_the_header_is_plain_json(tmp_path: Path) -> None:
    model, optimizer = _trained()
    checkpoint.save(tmp_path / "c.safetensors", model, optimizer, {"losses": []})
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert file.metadata()["state"] == '{"format_version": 1, "losses": []}'
