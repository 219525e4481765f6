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

from gapbridge.errors import ArtifactError, one_line
from gapbridge.train.optimiser import Optimiser

_FORMAT_VERSION = 1


def save(path: Path, model: nn.Module, optimizer: Optimiser, state: dict[str, Any]) -> None:
    """Write the trained weights, the buffers, the optimiser's moments and `state` to `path`, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    header = json.dumps({"format_version": _FORMAT_VERSION, **state}, sort_keys=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in _tensors(model, optimizer)}
    save_file(tensors, partial, metadata={"state": header})
    partial.replace(path)


def restore(path: Path, model: nn.Module, optimizer: Optimiser) -> dict[str, Any] | None:
    """Put the tensors of `path` into the model and the optimiser; gives back `state`, or None without a file.

    Raises ArtifactError when the file is damaged or was written for other weights.
    """
    if not path.exists():
        return None
    optimizer.give_moments()
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            targets = dict(_tensors(model, optimizer))
            if set(file.keys()) != set(targets):
                raise ArtifactError(f"{path}: holds the state of another model; delete it to start again")
            for name, target in targets.items():
                target.copy_(file.get_tensor(name))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path}: damaged or of another model ({one_line(error)}); delete it to start again"
        ) from error
    return state


def _tensors(model: nn.Module, optimizer: Optimiser) -> Iterable[tuple[str, Tensor]]:
    """What changes during training, by name. Buffers count: a batch norm keeps its running means there."""
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in trained:
            yield f"weights/{name}", parameter
            yield from ((f"{moment}/{name}", tensor) for moment, tensor in optimizer.moments(parameter).items())
    yield from ((f"buffers/{name}", buffer) for name, buffer in model.named_buffers())
