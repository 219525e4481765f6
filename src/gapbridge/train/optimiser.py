"""The optimiser of all training here: AdamW, and Muon (arXiv 2502.16982) for the groups that ask for it.

Muon gives every direction of a matrix the same say in a step. A small language model learns with it what AdamW leaves
on a plateau: to tell which of two things stands where.

torch's Muon multiplies in bf16 always. A processor without instructions for it takes many times as long as in fp32, so
there the same steps are made in fp32.
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
            slow = all(parameter.device.type == "cpu" for parameter in group.parameters) and not bf16_is_native()
            muon = Float32Muon if slow else torch.optim.Muon
            return muon(list(group.parameters), adjust_lr_fn="match_rms_adamw", **settings)
        return torch.optim.AdamW(list(group.parameters), betas=(0.9, beta2), fused=True, **settings)


class Float32Muon(torch.optim.Muon):
    """torch's Muon with its products in fp32; settings and state are the same."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # of torch's two, one takes a closure
        """Move every parameter that has a gradient. Raises ValueError for a closure, which nothing here needs."""
        if closure is not None:
            raise ValueError("this Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        remembered = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(remembered, momentum) if group["nesterov"] else remembered
        direction = _orthogonalised(direction.float(), group["ns_coefficients"], group["ns_steps"], group["eps"])
        parameter.mul_(1 - rate * group["weight_decay"])
        # As long in the mean as a step of AdamW (arXiv 2502.16982 §2.2).
        parameter.add_(direction, alpha=-0.2 * rate * max(parameter.shape) ** 0.5)


def bf16_is_native() -> bool:
    """Whether this processor multiplies bf16 numbers by instructions of its own."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def _orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float) -> Tensor:
    """Every singular value of the matrix (m, n) near 1, by Newton and Schulz's iteration with a quintic polynomial."""
    linear, cubic, quintic = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(rounds):
        squares = wide @ wide.T
        wide = linear * wide + (cubic * squares + quintic * squares @ squares) @ wide
    return wide.T if tall else wide


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
