"""Where training stands, in one safetensors file whose header carries the rest as JSON.

One file, moved into place when it is whole: a killed process leaves the old state or the new one,
never weights of one step beside the moments of another.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gapbridge.errors import ArtifactError

_FORMAT_VERSION = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write the trained weights, the buffers, the optimiser's moments and `state` to `path`, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    header = json.dumps({"format_version": _FORMAT_VERSION, **state}, sort_keys=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in _tensors(model, optimizer)}
    save_file(tensors, partial, metadata={"state": header})
    partial.replace(path)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put the tensors of `path` into the model and the optimiser; gives back `state`, or None without a file.

    Raises ArtifactError when the file is damaged or was written for other weights.
    """
    if not path.exists():
        return None
    _give_moments(optimizer)
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            targets = dict(_tensors(model, optimizer))
            if set(file.keys()) != set(targets):
                raise ArtifactError(f"{path}: holds the state of another model; delete it to start again")
            for name, target in targets.items():
                target.copy_(file.get_tensor(name))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: damaged or of another model ({reason}); delete it to start again") from error
    return state


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, Tensor]]:
    """What changes during training, by name. Buffers count: a batch norm keeps its running means there."""
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in trained:
            yield f"weights/{name}", parameter
            moments = optimizer.state[parameter]
            yield from ((f"{moment}/{name}", moments[moment]) for moment in _MOMENTS if moment in moments)
    yield from ((f"buffers/{name}", buffer) for name, buffer in model.named_buffers())


def _give_moments(optimizer: torch.optim.Optimizer) -> None:
    """Empty moments in the form that AdamW makes at its first step, so that a file can be read into them."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            device = parameter.device if group["fused"] or group["capturable"] else torch.device("cpu")
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
