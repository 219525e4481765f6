"""What of the language model learns in stage 2: all of it, low-rank additions to its linear layers (LoRA), or nothing.

The additions are merged into the weights when training ends, so that no trace of them is left in the result.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from gapbridge.errors import InputError
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.optimiser import Group

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Lora:
    """Additions `alpha / rank * B A` of that rank (arXiv 2106.09685), with dropout on their input.

    `targets` are last parts of the names of the language model's linear layers, or ALL_LINEAR.
    """

    rank: int
    alpha: float
    dropout: float
    targets: str | Sequence[str] = ALL_LINEAR


class LoraTuning:
    """The additions to the language model inside `model`, drawn from `seed`; its head is never one of the targets.

    Raises InputError when a target is no linear layer of the language model.
    """

    def __init__(self, model: GapbridgeForConditionalGeneration, lora: Lora, seed: int) -> None:
        from peft import LoraConfig, LoraModel

        language_model = model.model.language_model
        _demand_targets(language_model, lora.targets)
        targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._tuner = LoraModel(language_model, config, "default")
        self.parameters: list[nn.Parameter] = [
            parameter for name, parameter in language_model.named_parameters() if "lora_" in name
        ]

    def merge(self) -> None:
        """Add the products to the weights and leave the model as it was before, without peft.

        Raises ValueError when a merged weight is not a finite number.
        """
        self._tuner.merge_and_unload(safe_merge=True)


def shrink_frozen(model: GapbridgeForConditionalGeneration, groups: Iterable[Group]) -> None:
    """Weights of the language model that do not learn need no more than the bf16 they are computed in.

    Buffers (the rotary tables) stay exact, and so does the vision tower, which training does not use.
    """
    trained = {id(parameter) for group in groups for parameter in group.parameters}
    for part in (model.model.language_model, model.lm_head):
        for parameter in part.parameters():
            if id(parameter) not in trained:
                parameter.data = parameter.data.to(torch.bfloat16)


def _demand_targets(language_model: nn.Module, targets: str | Sequence[str]) -> None:
    if targets == ALL_LINEAR:
        return
    linear = {
        name.rpartition(".")[2] for name, module in language_model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    if unknown := sorted(set(targets) - linear):
        raise InputError(
            f"instruct.lora.targets: {', '.join(unknown)}: no linear layer of the language model is called so; "
            f"there are {', '.join(sorted(linear))}"
        )
