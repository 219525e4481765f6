"""What a training step will need, from the language model's config alone: memory of one GPU, arithmetic, no weights.

Memory is what a rehearsal of the step finds alive (`train.rehearsal`), beside weights and moments. The CUDA context
(about half a GiB) and gaps between blocks of memory come on top.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from gapbridge.model.assemble import AdapterShape
from gapbridge.model.config import GapbridgeConfig, GapbridgeVisionConfig
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.optimiser import Group
from gapbridge.train.rehearsal import Peak, StepShape, bytes_of, rehearse
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen

Tune = Literal["frozen", "lora", "full"]
"""What learns beside the adapter; stage 1 is `frozen`."""
_MOMENTS = 2  # of AdamW
_FP32_BYTES = 4


@dataclass(frozen=True)
class Footprint:
    """Bytes alive when a step needs most, and what it computes, on one rank.

    `activations` are what the backward pass waits for, `temporaries` whatever else is alive at that moment.
    `flops` are those of the model: two a weight and token forwards, two backwards, two more where the weight learns;
    attention without its causal half taken off, and nothing for layers computed again.
    """

    parameters: int
    trained_parameters: int
    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    temporaries: int
    tokens: int
    flops: float

    @property
    def peak(self) -> int:
        """All bytes together."""
        parts = (self.weights, self.gradients, self.optimiser, self.activations, self.logits, self.temporaries)
        return sum(parts)


def footprint(
    llm: PreTrainedConfig,
    adapter: AdapterShape,
    width: int,
    step: StepShape,
    tune: Tune,
    bf16: bool,
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
    tower_parameters: int = 0,
    ranks: int = 1,
) -> Footprint:
    """Of a step at full speed, after the first one; `tower_parameters` of the vision tower lie beside it in fp32.

    Raises ValueError where `tune` is lora and `lora` is missing.
    """
    model = _model(llm.get_text_config(), adapter, width, tune, bf16, lora)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(bytes_of(tensor) for tensor in (*model.parameters(), *model.buffers()))
    flops = step_flops(model, step)
    gradients = trained * _FP32_BYTES
    played = rehearse(model, step, bf16, gradient_checkpointing, buckets=ranks > 1)
    most = max(played, Peak(gradients, gradients, 0, 0))
    rest = most.live - most.gradients - most.logits
    activations = min(rest, most.kept)
    return Footprint(
        parameters + tower_parameters,
        trained,
        weights + tower_parameters * _FP32_BYTES,
        most.gradients,
        _MOMENTS * trained * _FP32_BYTES,
        activations,
        most.logits,
        rest - activations,
        step.rows * step.row_tokens,
        flops,
    )


def _model(
    text: PreTrainedConfig, adapter: AdapterShape, width: int, tune: Tune, bf16: bool, lora: Lora | None
) -> GapbridgeForConditionalGeneration:
    """On the meta device, in the precisions of training, what learns marked so."""
    with torch.device("meta"):
        model = _bare(text, adapter, width)
        groups = _learners(model, tune, lora)
    if bf16:
        shrink_frozen(model, groups)
    model.requires_grad_(False)
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(True)
    return model.train()


def _bare(text: PreTrainedConfig, adapter: AdapterShape, width: int) -> GapbridgeForConditionalGeneration:
    config = GapbridgeConfig(
        vision_config=GapbridgeVisionConfig(hidden_size=width),
        text_config=text,
        image_seq_length=adapter.visual_tokens,
        visual_tokens=adapter.visual_tokens,
        adapter_hidden_size=adapter.hidden_size,
        expansion=adapter.expansion,
        tie_word_embeddings=text.tie_word_embeddings,
        dtype="float32",
    )
    model = GapbridgeForConditionalGeneration(config)
    if text.tie_word_embeddings:
        model.lm_head.weight = model.get_input_embeddings().weight
    return model


def _learners(model: GapbridgeForConditionalGeneration, tune: Tune, lora: Lora | None) -> list[Group]:
    adapter = Group(list(model.model.multi_modal_projector.parameters()), 1.0, 0.0)
    if tune == "frozen":
        return [adapter]
    if tune == "full":
        return [Group(list(model.parameters()), 1.0, 0.0)]
    if lora is None:
        raise ValueError("tune lora needs the additions' shape")
    return [adapter, Group(LoraTuning(model, lora, 0).parameters, 1.0, 0.0)]


def step_flops(model: GapbridgeForConditionalGeneration, step: StepShape) -> float:
    """What `Footprint.flops` says, for a model whose learning parameters require gradients."""
    tokens = step.rows * step.row_tokens
    passes = [(module, tokens) for module in model.model.language_model.modules()]
    passes += [(module, step.samples) for module in model.model.multi_modal_projector.modules()]
    passes += [(model.lm_head, step.targets)]
    total = 0.0
    for module, places in passes:
        if isinstance(module, nn.Linear | Conv1D):
            total += 2.0 * module.weight.numel() * places * (2 + module.weight.requires_grad)
    return total + 3 * _attention_flops(model.config.text_config, step)


def _attention_flops(text: PreTrainedConfig, step: StepShape) -> float:
    """Forwards: queries with keys, weights with values."""
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    layers = sum("attention" in kind for kind in kinds)
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    return 4.0 * layers * width * step.rows * step.row_tokens**2
