"""Muon without bf16: the steps of torch's own to within its rounding, and the same state."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gapbridge.train import checkpoint, optimiser
from gapbridge.train.optimiser import Float32Muon, Group, Optimiser

SHAPES = [(24, 24), (48, 16), (16, 48), (40, 1)]


def _matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(4)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def _walk(native: bool, monkeypatch: pytest.MonkeyPatch, steps: int = 5) -> tuple[list[nn.Parameter], Optimiser]:
    monkeypatch.setattr(optimiser, "bf16_is_native", lambda: native)
    matrices = _matrices()
    made = Optimiser([Group(matrices, 0.02, 0.1, muon=True)], 0.98)
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        made.step()
    return matrices, made


def test_its_steps_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    start = _matrices()
    theirs, torchs = _walk(True, monkeypatch)
    ours, own = _walk(False, monkeypatch)
    assert type(torchs._parts[0]) is torch.optim.Muon and type(own._parts[0]) is Float32Muon
    for first, their, our in zip(start, theirs, ours, strict=True):
        moved = (their - first).norm()
        assert moved > 0.1 and (our - their).norm() < 0.03 * moved
        assert torch.equal(own.moments(our)["momentum_buffer"], torchs.moments(their)["momentum_buffer"])


@pytest.mark.parametrize("nesterov", [True, False])
def test_every_direction_has_the_same_say(nesterov: bool) -> None:
    matrix = nn.Parameter(torch.zeros(32, 16))
    left, _ = torch.linalg.qr(torch.randn(32, 16, generator=torch.Generator().manual_seed(1)))
    matrix.grad = left * torch.logspace(0, -1.5, 16)
    Float32Muon([matrix], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", nesterov=nesterov).step()
    spread = torch.linalg.svdvals(matrix.detach()) / (0.2 * 32**0.5)
    assert 0.6 < spread.min() and spread.max() < 1.3


def test_decay_pulls_what_has_no_gradient_of_size_and_leaves_what_has_none() -> None:
    still, idle = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    still.grad = torch.zeros(4, 4)
    Float32Muon([still, idle], lr=0.5, weight_decay=0.1, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(still.detach(), torch.full((4, 4), 0.95)) and torch.equal(idle.detach(), torch.ones(4, 4))


def test_each_reads_the_checkpoint_of_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that moves to another processor goes on."""
    theirs, torchs = _walk(True, monkeypatch)
    checkpoint.save(tmp_path / "c.safetensors", nn.ParameterList(theirs), torchs, {})
    ours, own = _walk(False, monkeypatch, steps=0)
    assert checkpoint.restore(tmp_path / "c.safetensors", nn.ParameterList(ours), own) is not None
    assert torch.equal(own.moments(ours[0])["momentum_buffer"], torchs.moments(theirs[0])["momentum_buffer"])


def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, native in (({"avx512_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert optimiser.bf16_is_native() is native


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="no closure"):
        Float32Muon([nn.Parameter(torch.ones(2, 2))]).step(lambda: None)
