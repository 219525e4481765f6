"""A tiny regression for the loop: b rows of width 6, targets of width 2. Runs alone as one rank of several."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from gapbridge.train.loop import History, Settings, StepLoss, fit
from gapbridge.train.optimiser import Group

SETTINGS = Settings(steps=12, warmup_fraction=0.2, checkpoint_every_steps=4, heldout_every_steps=5, seed=3)


class Tiny(nn.Module):
    """A frozen layer, dropout (hence random numbers), a batch norm (hence buffers), a trained layer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(dropout)
        self.trained = nn.Linear(8, 2)

    def forward(self, rows: Tensor) -> Tensor:
        return self.trained(self.dropout(self.norm(torch.tanh(self.frozen(rows)))))


class Plain(nn.Module):
    """Without anything that looks across the rows of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


def batch_of(step: int, rank: int, world: int) -> dict[str, Tensor]:
    """Every world-th row of the step's 9 rows: ranks get unequal shares."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randn(9, 6, generator=generator)
    return {"rows": rows[rank::world], "targets": rows[rank::world, :2].abs()}


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> StepLoss:
    """Summed squared error."""
    error = (model(batch["rows"]) - batch["targets"]).square()
    return StepLoss(error.sum(), error.numel(), tokens=error.numel(), samples=len(error))


def plain_run(scratch: Path | None = None) -> History:
    """The run whose losses must not depend on the number of ranks."""
    torch.manual_seed(0)
    model = Plain()
    heldout = [batch_of(100 + step, 0, 1) for step in range(3)]
    return fit(
        model, [Group(list(model.parameters()), 0.05, 0.01)], batch_of, loss_of, SETTINGS, scratch, None, "tiny",
        heldout=heldout,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    history = plain_run()
    if torch.distributed.get_rank() == 0:
        content = {"losses": history.losses, "heldout": list(history.heldout.values())}
        Path(sys.argv[1]).write_text(json.dumps(content))
    torch.distributed.destroy_process_group()
