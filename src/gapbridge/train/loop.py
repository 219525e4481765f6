"""The one training loop: every stage that trains says what a batch is and what it costs, and this does the rest.

One process or several (torchrun), on the GPU where there is one; in bf16 there and in fp32 on the CPU, unless told.
Each step is a pure function of the weights and (seed, step), so a run that was killed goes on from its
last checkpoint and, on a CPU, ends with the same bytes. Several ranks share one global batch: the loss is the sum
over all targets divided by their global count, hence the number of ranks does not change it.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor, nn
from tqdm import tqdm

from gapbridge.errors import ArtifactError, InputError, TrainingError
from gapbridge.train import checkpoint, schedule
from gapbridge.train.optimiser import Group, Optimiser

if TYPE_CHECKING:
    import polars  # a table is made after training alone, and a GPU box may train without polars

Precision = Literal["auto", "bf16", "fp32"]

_log = logging.getLogger(__name__)


class StepLoss(NamedTuple):
    """What one batch costs on this rank."""

    total: Tensor
    """Scalar: the loss summed over the targets."""
    count: int  # type: ignore[assignment]  # tuple has a method of this name
    """Targets (tokens, or rows) that `total` sums over."""
    tokens: int = 0
    """Useful tokens, for the throughput alone."""
    samples: int = 0


@dataclass(frozen=True)
class Settings:
    """How long and how fast. Steps are optimiser steps."""

    steps: int
    warmup_fraction: float
    beta2: float = 0.98
    clip_norm: float = 1.0
    checkpoint_every_steps: int = 200
    heldout_every_steps: int = 200
    seed: int = 0
    precision: Precision = "auto"


class Metrics(Protocol):
    """The part of a tracker that the loop needs."""

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers at one step."""


@dataclass
class History:
    """What training has cost so far."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of a target at each step, over all ranks."""
    heldout: dict[int, float] = field(default_factory=dict)
    """Mean loss of a held-out target after so many steps."""

    def frame(self) -> "polars.DataFrame":
        """Columns step (from 1), loss, heldout (null where it was not measured)."""
        import polars

        steps = range(1, len(self.losses) + 1)
        return polars.DataFrame(
            {"step": list(steps), "loss": self.losses, "heldout": [self.heldout.get(step) for step in steps]},
            schema={"step": polars.Int64, "loss": polars.Float64, "heldout": polars.Float64},
        )


def fit(
    model: nn.Module,
    groups: Sequence[Group],
    batch_of: Callable[[int, int, int], Any],
    loss_of: Callable[[nn.Module, Any], StepLoss],
    settings: Settings,
    scratch: Path | None,
    tracker: Metrics | None,
    label: str,
    heldout: Sequence[Any] = (),
    after_step: Callable[[int], None] | None = None,
) -> History:
    """Train `model` in place; afterwards it stands in evaluation mode on the device it was trained on.

    `batch_of(step, rank, world)` gives this rank's part of the global batch, tensors on the CPU, and is
    a pure function of its arguments. `loss_of(model, batch)` must go through the model it is handed, which
    sums gradients over ranks. `heldout` are batches whose loss is measured every so many steps and at the
    end. `after_step(done)` runs after each step, not again for steps before a checkpoint.

    Raises TrainingError at the first loss or gradient that is not a finite number, ArtifactError when the
    checkpoint in `scratch` belongs to other work.
    """
    run = _Run(model, groups, loss_of, settings, label)
    path = scratch / f"{label}.safetensors" if scratch else None
    history = run.resume(path)
    first = len(history.losses)
    progress_bar = _progress(label, settings.steps, first, run.accelerator.is_main_process)
    with flushed_denormals(), progress_bar as progress:
        meter = _Meter(tracker if run.accelerator.is_main_process else None, label, settings, progress)
        for step in range(first, settings.steps):
            batch = batch_of(step, run.accelerator.process_index, run.accelerator.num_processes)
            history.losses.append(run.step(step, batch, meter))
            done = step + 1
            last = done == settings.steps
            if heldout and (last or done % settings.heldout_every_steps == 0):
                history.heldout[done] = run.evaluate(heldout)
                meter.heldout(done, history.heldout[done])
            if path and (last or done % settings.checkpoint_every_steps == 0):
                run.save(path, history)
            if after_step:
                after_step(done)
    model.eval()
    return history


def demand_shares(samples: int, world: int) -> None:
    """Raise InputError where a batch of so many samples leaves one of `world` processes without any."""
    if samples < world:
        raise InputError(
            f"training.batch_size: a batch has {samples} samples for {world} processes; give each one, or start fewer"
        )


def in_bf16(precision: Precision) -> bool:
    """Whether products are made in bf16: where it is asked for, and on a GPU unless fp32 is."""
    return precision == "bf16" or (precision == "auto" and torch.cuda.is_available())


def autocast(device: str, bf16: bool) -> torch.autocast:
    """Products in bf16, where that is asked for.

    Weights are not remembered in bf16 between their uses: until the forward pass ends, all of them would lie in memory
    twice. Each is used once a pass but for the head, whose gradients are then summed over chunks in fp32, not in bf16.
    """
    return torch.autocast(device, torch.bfloat16, bf16, cache_enabled=False)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small to matter count as zero here: they cost a hundred times the time of others."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Run:
    """The model, its optimiser and the ranks around them."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        loss_of: Callable[[nn.Module, Any], StepLoss],
        settings: Settings,
        label: str,
    ) -> None:
        # The precision is the loop's own: accelerate remembers one for the whole process.
        # Gradients lie in the buckets that are summed over ranks: a copy of them would take their memory twice.
        buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[buckets]
        )
        self.settings, self.label, self.loss_of = settings, label, loss_of
        self.model = model.to(self.accelerator.device).train()
        model.requires_grad_(False)
        self.parameters = [parameter.requires_grad_(True) for group in groups for parameter in group.parameters]
        self.optimizer = Optimiser(groups, settings.beta2)
        self.base_rates = [group.learning_rate for group in groups]
        self.wrapped = self.accelerator.prepare_model(self.model) if self.accelerator.num_processes > 1 else self.model

    def step(self, step: int, batch: Any, meter: "_Meter") -> float:
        """One optimiser step; gives back the global mean loss."""
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * 1_009 + self.accelerator.process_index)
        with self._autocast():
            loss = self.loss_of(self.wrapped, send_to_device(batch, self.accelerator.device))
        sums = self._sum_over_ranks(loss)
        (loss.total * (self.accelerator.num_processes / sums[1])).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        # One transfer for all figures of a step.
        total, count, tokens, samples, gradient = torch.cat([sums, norm[None].to(sums)]).tolist()
        self._demand_finite(step, total, count, gradient)
        rate = schedule.factor(step, self.settings.steps, self.settings.warmup_fraction)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        meter.step(step + 1, total / count, gradient, rate, tokens, samples)
        return total / count

    def evaluate(self, batches: Sequence[Any]) -> float:
        """Mean held-out loss; each rank takes its share of the batches."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        mine = batches[self.accelerator.process_index :: self.accelerator.num_processes]
        with torch.no_grad(), self._autocast():
            for batch in mine:
                loss = self.loss_of(self.model, send_to_device(batch, self.accelerator.device))
                sums += torch.tensor([loss.total.item(), loss.count], dtype=torch.float64)
        self.model.train()
        total, count = self._reduce(sums).tolist()
        return total / count

    def resume(self, path: Path | None) -> History:
        """The history so far, after putting a checkpoint's state in place."""
        state = checkpoint.restore(path, self.model, self.optimizer) if path else None
        self.accelerator.wait_for_everyone()  # with nothing left to train, the first rank would soon remove it
        if state is None:
            return History()
        if state["settings"] != self._identity():
            raise ArtifactError(f"{path}: was written with other settings; delete it to start again")
        _log.info("%s: going on after step %d of %d", self.label, len(state["losses"]), self.settings.steps)
        return History(state["losses"], {int(step): value for step, value in state["heldout"].items()})

    def save(self, path: Path, history: History) -> None:
        """Write a checkpoint from the first rank; the others wait."""
        if self.accelerator.is_main_process:
            state = {"settings": self._identity(), "losses": history.losses, "heldout": history.heldout}
            checkpoint.save(path, self.model, self.optimizer, state)
        self.accelerator.wait_for_everyone()

    def _autocast(self) -> torch.autocast:
        return autocast(self.accelerator.device.type, in_bf16(self.settings.precision))

    def _identity(self) -> dict[str, Any]:
        keys = ("steps", "warmup_fraction", "beta2", "clip_norm", "seed")
        return {key: getattr(self.settings, key) for key in keys} | {"learning_rates": self.base_rates}

    def _sum_over_ranks(self, loss: StepLoss) -> Tensor:
        """The four numbers of a step's loss (4,), summed over the ranks."""
        counts = torch.tensor([loss.count, loss.tokens, loss.samples], dtype=torch.float64)
        total = loss.total.detach()[None]
        return self._reduce(torch.cat([total.double(), counts.to(total.device)]))

    def _reduce(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return reduced

    def _demand_finite(self, step: int, total: float, count: float, gradient: float) -> None:
        where = f"{self.label} step {step + 1}"
        if count == 0:
            raise TrainingError(f"{where}: the batch has no targets; look at the rows that it was made of")
        what = "loss" if not math.isfinite(total) else "gradient" if not math.isfinite(gradient) else None
        if what:
            raise TrainingError(
                f"{where}: the {what} is not a finite number; lower the learning rate or look for extreme "
                "values in the data, then run the stage again"
            )


class _Meter:
    """Tells the tracker and the progress bar, a hundred times in all, how fast it goes. Nothing of it enters an out."""

    def __init__(self, tracker: Metrics | None, label: str, settings: Settings, progress: "tqdm[Any]") -> None:
        self.tracker, self.label, self.progress = tracker, label, progress
        self.every = max(1, settings.steps // 100)
        self._restart()

    def step(self, done: int, loss: float, norm: float, rate: float, tokens: float, samples: float) -> None:
        """Count one step; report when it is time."""
        self.steps += 1
        self.loss += loss
        self.tokens += tokens
        self.samples += samples
        self.progress.update()
        if self.tracker and (done == 1 or done % self.every == 0):
            seconds = max(time.perf_counter() - self.since, 1e-9)
            values = {"loss": self.loss / self.steps, "gradient_norm": norm, "rate_factor": rate}
            speed = {"tokens_per_second": self.tokens / seconds, "samples_per_second": self.samples / seconds}
            self.tracker.log_metrics(values | speed, done)
            self.progress.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
            self._restart()

    def heldout(self, done: int, loss: float) -> None:
        """Report the held-out loss, whose time does not count as training."""
        if self.tracker:
            self.tracker.log_metrics({"heldout_loss": loss}, done)
        if not self.progress.disable:  # one rank speaks for all
            _log.info("%s: held-out loss %.4f after step %d", self.label, loss, done)
        self._restart()

    def _restart(self) -> None:
        self.since, self.steps, self.loss, self.tokens, self.samples = time.perf_counter(), 0, 0.0, 0.0, 0.0


def _progress(label: str, steps: int, first: int, shown: bool) -> "tqdm[Any]":
    """A bar with an estimate on stderr; seldom redrawn where stderr is a file."""
    interval = 0.2 if sys.stderr.isatty() else 5.0
    return tqdm(total=steps, initial=first, desc=label, unit="step", mininterval=interval, disable=not shown)
