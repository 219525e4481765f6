"""The optimiser of all training here: AdamW, and Muon (arXiv 2502.16982) for the groups that ask for it.

Muon gives every direction of a matrix the same say in a step. A small language model learns with it what AdamW leaves
on a plateau: to tell which of two things stands where.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Group(NamedTuple):
    """Parameters that share a learning rate; parameters in no group are frozen.

    With `muon` they have to be matrices; updates are scaled so that AdamW's learning rates fit.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float
    muon: bool = False


class Optimiser:
    """Both, with the groups in the order that they were given."""

    def __init__(self, groups: Sequence[Group], beta2: float) -> None:
        made = [self._make(group, beta2) for group in groups]
        self._parts = made
        self.param_groups: list[dict[str, Any]] = [group for part in made for group in part.param_groups]

    def step(self) -> None:
        """Move every parameter by its gradient."""
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What the optimiser remembers of a parameter, by name; nothing before its first step."""
        for part in self._parts:
            if parameter in part.state:
                return {name: value for name, value in part.state[parameter].items() if isinstance(value, Tensor)}
        return {}

    def give_moments(self) -> None:
        """Empty moments in the form of a first step, so that a file can be read into them."""
        for part in self._parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    part.state[parameter] = _empty(parameter, group)

    @staticmethod
    def _make(group: Group, beta2: float) -> torch.optim.Optimizer:
        settings: dict[str, Any] = {"lr": group.learning_rate, "weight_decay": group.weight_decay}
        if group.muon:
            return torch.optim.Muon(list(group.parameters), adjust_lr_fn="match_rms_adamw", **settings)
        return torch.optim.AdamW(list(group.parameters), betas=(0.9, beta2), fused=True, **settings)


def _empty(parameter: nn.Parameter, group: dict[str, Any]) -> dict[str, Tensor]:
    zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    if "momentum" in group:
        return {"momentum_buffer": zeros}
    device = parameter.device if group["fused"] or group["capturable"] else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=device),
        "exp_avg": zeros,
        "exp_avg_sq": zeros.clone(memory_format=torch.preserve_format),
    }
