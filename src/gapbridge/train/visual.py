"""Training on vectors, as both stages do it: hold groups out, batch, fit, count; and the adapter's files.

Shapes: `n` samples, `d` width of a vector, `h` width of the language model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import nn

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError, one_line
from gapbridge.model.adapter import Adapter
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.batches import Batches, Vectors
from gapbridge.train.examples import hold_out, target_loss
from gapbridge.train.loop import History, Metrics, Precision, Settings, fit
from gapbridge.train.optimiser import Group
from gapbridge.train.prompts import Example

FORMAT_VERSION = 1
_CARD, _WEIGHTS = "adapter.json", "adapter.safetensors"
_LAST_STEPS = 50


@dataclass(frozen=True)
class Material:
    """What there is to learn: `examples` (n,), their `groups` (n,), and where each one's vector lies.

    `packed` lets several samples share a row, for models of which `batches.packs_exactly` is true; `noise` is the
    root mean square length of noise on each vector.
    """

    examples: Sequence[Example]
    groups: Sequence[str]
    vectors: Vectors
    places: np.ndarray
    packed: bool
    noise: float = 0.0


@dataclass(frozen=True)
class Course:
    """How it is learned. None steps are one pass over the rows; the rest is as in `loop.Settings`.

    With `gradient_checkpointing` each layer of the language model computes its inner states again in the backward pass
    rather than keeping them: the same loss with less memory, and about a third more arithmetic.
    """

    steps: int | None
    batch_size: int
    warmup_fraction: float
    beta2: float
    clip_norm: float
    checkpoint_every_steps: int
    heldout_every_steps: int
    heldout_rows: int
    seed: int
    precision: Precision = "auto"
    gradient_checkpointing: bool = False


def train(
    model: GapbridgeForConditionalGeneration,
    groups: Sequence[Group],
    material: Material,
    course: Course,
    scratch: Path | None,
    tracker: Metrics | None,
    label: str,
) -> tuple[History, dict[str, Any]]:
    """Train the parameters of `groups` in place, the others frozen; gives back losses and the stage's figures.

    Without `scratch` nothing is written while it trains.

    Raises InputError without rows, TrainingError at the first loss that is not a number.
    """
    kept, heldout = hold_out(material.groups, course.heldout_rows, course.seed)
    if not len(kept):
        raise InputError(f"{label}: there are no rows to learn from; look at the quarantine of ingest")
    batches = _batches(material, kept, course)
    steps = course.steps or batches.per_epoch
    settings = Settings(
        steps,
        course.warmup_fraction,
        course.beta2,
        course.clip_norm,
        course.checkpoint_every_steps,
        course.heldout_every_steps,
        course.seed,
        course.precision,
    )
    unseen = _batches(material, heldout, course).in_order() if len(heldout) else []
    with recomputed_layers(model, course.gradient_checkpointing):
        history = fit(model, groups, batches, target_loss, settings, scratch, tracker, label, unseen)
    figures = {
        "rows": len(kept),
        "heldout_rows": len(heldout),
        "steps": steps,
        "samples_seen": int(sum(len(batches.samples(step)) for step in range(steps))),
        "tokens_seen": batches.tokens(steps),
        "useful_token_share": batches.useful_share(steps),
        "packed": material.packed,
        "trained_parameters": sum(parameter.numel() for group in groups for parameter in group.parameters),
        "loss": float(np.mean(history.losses[-_LAST_STEPS:])),
        "loss_heldout": history.heldout.get(steps),
    }
    return history, figures


@contextmanager
def recomputed_layers(model: GapbridgeForConditionalGeneration, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing of every layer of the language model, where it is `wanted`."""
    if not wanted:
        yield
        return
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()  # which only the other kind of checkpointing needs
    try:
        yield
    finally:
        model.activation_checkpointing_disable()


def groups_of(module: nn.Module, learning_rate: float, weight_decay: float) -> list[Group]:
    """The parameters of `module`: matrices decay, biases and gains do not."""
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim < 2]
    groups = [Group(matrices, learning_rate, weight_decay), Group(others, learning_rate, 0.0)]
    return [group for group in groups if group.parameters]


def save_adapter(folder: Path, adapter: Adapter, card: dict[str, Any]) -> None:
    """Write the adapter alone: its weights and constants, and what it belongs to."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.state_dict().items()}
    artifacts.write_bytes(folder / _WEIGHTS, safetensors.torch.save(tensors))
    artifacts.write_json(folder / _CARD, {"format_version": FORMAT_VERSION, **card})


def read_card(folder: Path) -> dict[str, Any]:
    """What `save_adapter` said of the adapter in `folder`. Raises ArtifactError for another format version."""
    card = artifacts.read_json(folder / _CARD)
    if not isinstance(card, dict) or card.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{folder / _CARD}: not an adapter of format {FORMAT_VERSION}; run pretrain again")
    return card


def load_adapter(folder: Path, adapter: Adapter) -> None:
    """Put saved weights and constants into `adapter`.

    Raises ArtifactError when they are damaged or of another shape.
    """
    path = folder / _WEIGHTS
    try:
        adapter.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: not the weights of this adapter ({one_line(error)}); run pretrain again"
        ) from error


def _batches(material: Material, chosen: np.ndarray, course: Course) -> Batches:
    examples = [material.examples[place] for place in chosen]
    places = material.places[chosen]
    return Batches(examples, material.vectors, places, course.batch_size, course.seed, material.packed, material.noise)
