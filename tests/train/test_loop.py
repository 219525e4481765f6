"""The loop: ranks agree, a killed run ends with the same bytes, frozen is frozen, a NaN stops it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gapbridge.errors import ArtifactError, TrainingError
from gapbridge.train.loop import History, Settings, StepLoss, fit
from gapbridge.train.optimiser import Group

from . import tiny

Seen = list[tuple[int, dict[str, float]]]


class Notes:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.seen.append((step, dict(values)))


def _fit(
    model: tiny.Tiny,
    scratch: Path | None,
    settings: Settings = tiny.SETTINGS,
    loss_of: Callable[[nn.Module, dict[str, Tensor]], StepLoss] = tiny.loss_of,
    tracker: Notes | None = None,
    after_step: Callable[[int], None] | None = None,
) -> History:
    groups = [
        Group([model.trained.weight], 0.05, 0.01),
        Group([model.trained.bias, *model.norm.parameters()], 0.02, 0.0),
    ]
    heldout = [tiny.batch_of(100, 0, 1)]
    return fit(model, groups, tiny.batch_of, loss_of, settings, scratch, tracker, "tiny", heldout, after_step)


def _model(dropout: float = 0.3) -> tiny.Tiny:
    torch.manual_seed(0)
    return tiny.Tiny(dropout)


def _bytes(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_it_learns_and_reports() -> None:
    notes = Notes()
    history = _fit(_model(0.0), None, tracker=notes)
    assert len(history.losses) == 12
    assert list(history.heldout) == [5, 10, 12]
    assert history.heldout[12] < history.heldout[5]
    assert history.frame().columns == ["step", "loss", "heldout"]
    assert history.frame()["heldout"].drop_nulls().to_list() == list(history.heldout.values())
    assert {"loss", "gradient_norm", "tokens_per_second", "samples_per_second"} <= set(notes.seen[0][1])


def test_two_ranks_match_one(tmp_path: Path, checkout: Path) -> None:
    result = tmp_path / "losses.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.train.tiny", str(result)]
    subprocess.run(command, check=True, timeout=120, capture_output=True, cwd=checkout)
    two = json.loads(result.read_text())
    one = tiny.plain_run()
    assert two["losses"] == pytest.approx(one.losses, abs=1e-5)
    assert two["heldout"] == pytest.approx(list(one.heldout.values()), abs=1e-5)


@pytest.mark.parametrize("killed_after", [4, 6, 11, 12])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, killed_after: int) -> None:
    whole = _model()
    expected = _fit(whole, None)

    def kill(done: int) -> None:
        if done == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(_model(), tmp_path, after_step=kill)
    resumed, steps = _model(), []
    history = _fit(resumed, tmp_path, after_step=steps.append)
    assert history == expected
    assert _bytes(resumed) == _bytes(whole)
    assert len(steps) == 12 - killed_after // 4 * 4


def test_what_is_in_no_group_keeps_its_bytes() -> None:
    model = _model()
    before = _bytes(model)
    _fit(model, None)
    after = _bytes(model)
    assert {name for name in before if before[name] == after[name]} == {"frozen.weight", "frozen.bias"}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_it_stops_at_the_first_number_that_is_none(what: str) -> None:
    model = _model()

    def loss_of(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepLoss:
        loss = tiny.loss_of(wrapped, batch)
        if len(steps) != 2:
            return loss
        # The square root's slope at 0 is infinite, though its value is not.
        extra = torch.sqrt(model.trained.bias.sum() * 0) if what == "gradient" else float("nan")
        return loss._replace(total=loss.total + extra)

    steps: list[int] = []
    seen: list[dict[str, bytes]] = []

    def after_step(done: int) -> None:
        steps.append(done)
        seen.append(_bytes(model))

    with pytest.raises(TrainingError, match=f"tiny step 3: the {what} is not a finite number"):
        _fit(model, None, loss_of=loss_of, after_step=after_step)
    assert _bytes(model)["trained.weight"] == seen[-1]["trained.weight"]


def test_a_batch_without_targets_is_an_error() -> None:
    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> StepLoss:
        return tiny.loss_of(model, batch)._replace(count=0)

    with pytest.raises(TrainingError, match="step 1: the batch has no targets"):
        _fit(_model(), None, loss_of=loss_of)


def test_a_checkpoint_of_other_work_is_refused(tmp_path: Path) -> None:
    _fit(_model(), tmp_path)
    with pytest.raises(ArtifactError, match="other settings"):
        _fit(_model(), tmp_path, settings=Settings(steps=13, warmup_fraction=0.2))
