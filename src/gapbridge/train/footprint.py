"""What a training step will need, from the language model's config alone: memory of one GPU, arithmetic, no weights.

The step is played through with tensors that have a shape and no content, and every byte that would be alive is
counted: whatever the family, the attention or the layers computed again, it is the code that will run. The CUDA
context (about half a GiB) and gaps between blocks of memory come on top.

Shapes: `b` rows of a batch, `t` tokens of a row, `m` targets, `k` visual tokens, `d` width of a vector, `h` width of
the language model, `v` vocabulary.
"""

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from gapbridge.model.assemble import AdapterShape
from gapbridge.model.config import GapbridgeConfig, GapbridgeVisionConfig
from gapbridge.model.loss import rows_cross_entropy
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.optimiser import Group
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen
from gapbridge.train.visual import recomputed_layers

Tune = Literal["frozen", "lora", "full"]
"""What learns beside the adapter; stage 1 is `frozen`."""
_MOMENTS = 2  # of AdamW
_FP32_BYTES = 4
_PLAYED_LAYERS = 4


@dataclass(frozen=True)
class StepShape:
    """One rank's share of a step: `rows` of `row_tokens` each hold `samples` pictures and `targets` labelled tokens."""

    rows: int
    row_tokens: int
    samples: int
    targets: int
    packed: bool = False


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
    needed = _Needed(adapter, width, step, tune, bf16, gradient_checkpointing, lora, buckets=ranks > 1)
    model = needed.model(llm.get_text_config())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))
    gradients = trained * _FP32_BYTES
    most = max(needed.peak(llm.get_text_config()), Peak(gradients, gradients, 0, 0))
    rest = most.live - most.gradients - most.logits
    activations = min(rest, most.kept)
    return Footprint(
        sum(parameter.numel() for parameter in model.parameters()) + tower_parameters,
        trained,
        weights + tower_parameters * _FP32_BYTES,
        most.gradients,
        _MOMENTS * trained * _FP32_BYTES,
        activations,
        most.logits,
        rest - activations,
        step.rows * step.row_tokens,
        step_flops(model, step),
    )


class Peak(NamedTuple):
    """The moment when most bytes were alive beside weights and moments; `kept` were at the end of the forward pass."""

    live: int
    gradients: int
    logits: int
    kept: int


class _Needed(NamedTuple):
    """What `footprint` was asked about, but for the language model."""

    adapter: AdapterShape
    width: int
    step: StepShape
    tune: Tune
    bf16: bool
    gradient_checkpointing: bool
    lora: Lora | None
    buckets: bool
    """Whether the room for all gradients is there all the time, as it is where ranks sum them."""

    def model(self, text: PreTrainedConfig) -> GapbridgeForConditionalGeneration:
        """On the meta device, in the precisions of training, what learns marked so."""
        with torch.device("meta"):
            model = _bare(text, self.adapter, self.width)
            groups = _learners(model, self.tune, self.lora)
        if self.bf16:
            shrink_frozen(model, groups)
        model.requires_grad_(False)
        for group in groups:
            for parameter in group.parameters:
                parameter.requires_grad_(True)
        return model.train()

    def peak(self, text: PreTrainedConfig) -> Peak:
        """Played through; of a deep model at two small depths, since every further layer costs the same."""
        kinds, depth = getattr(text, "layer_types", None), text.num_hidden_layers
        period = _period(kinds) if kinds else 1
        small = -(-_PLAYED_LAYERS // period) * period
        if depth <= small + period:
            return self._play(text)
        first, second = (self._play(_cut(text, layers)) for layers in (small, small + period))
        more = (depth - small) / period
        return Peak(*(round(one + more * (other - one)) for one, other in zip(first, second, strict=True)))

    def _play(self, text: PreTrainedConfig) -> Peak:
        model = self.model(text)
        with FakeTensorMode(), recomputed_layers(model, self.gradient_checkpointing):
            _put_on_cpu(model)
            return _play(model, self.step, self.bf16, self.buckets)


def _period(kinds: list[str]) -> int:
    """After how many layers their kinds come again."""
    return next(length for length in range(1, len(kinds) + 1) if kinds == (kinds[:length] * len(kinds))[: len(kinds)])


def _cut(text: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    cut = copy.deepcopy(text)
    cut.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        cut.layer_types = text.layer_types[:layers]
    return cut


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


def _put_on_cpu(model: nn.Module) -> None:
    """Put tensors without content, that autocast takes for the CPU's, in the place of those of the meta device."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
                module._parameters[name] = made.setdefault(id(parameter), empty)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _play(model: GapbridgeForConditionalGeneration, step: StepShape, bf16: bool, buckets: bool) -> Peak:
    """Forwards and backwards, as `train.examples.target_loss` goes, but for what looks at the tensors' content."""
    text = model.config.text_config
    watch = _Watch(model, text.vocab_size, buckets)
    with watch:
        with torch.autocast("cpu", torch.bfloat16, bf16):
            tokens = model.model.multi_modal_projector(
                torch.zeros(step.samples, model.config.vision_config.hidden_size)
            )
            ids = torch.zeros(step.rows, step.row_tokens, dtype=torch.long)
            embeds = model.get_input_embeddings()(ids)
            places = torch.zeros_like(ids, dtype=torch.bool)[..., None]
            embeds = embeds.masked_scatter(places, tokens.to(embeds.dtype))
            mask = None
            if step.packed:
                mask = torch.zeros(step.rows, 1, step.row_tokens, step.row_tokens, dtype=torch.bool)
            states = model.model.language_model(
                inputs_embeds=embeds, attention_mask=mask, use_cache=False
            ).last_hidden_state
            del tokens, ids, embeds, places
            kept = watch.live
            rows = states.reshape(-1, text.hidden_size)[: step.targets]
            targets = torch.zeros(step.targets, dtype=torch.long)
            loss = rows_cross_entropy(rows, targets, model.head, text.vocab_size)
            del rows, states
        loss.backward()
    return Peak(*watch.peak, kept)


class _Watch(TorchDispatchMode):
    """Counts the bytes of every storage from the operation that makes it to its end."""

    def __init__(self, model: nn.Module, vocabulary: int, buckets: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buckets = buckets
        self.gradients = sum(map(_bytes, learning)) if buckets else 0
        self.live, self.logits = self.gradients, 0
        self.peak = (0, 0, 0)
        self._vocabulary = vocabulary
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in (*model.parameters(), *model.buffers()):
            self._known.add(tensor.untyped_storage())
        for parameter in learning:
            parameter.register_post_accumulate_grad_hook(self._count_gradient)

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        logits = size if tensor.ndim == 2 and tensor.shape[1] == self._vocabulary else 0
        self._add(size, logits)
        weakref.finalize(storage, self._add, -size, -logits)

    def _add(self, size: int, logits: int) -> None:
        self.live, self.logits = self.live + size, self.logits + logits
        if self.live > self.peak[0]:
            self.peak = (self.live, self.gradients, self.logits)

    def _count_gradient(self, parameter: Tensor) -> None:
        if self._buckets:
            parameter.grad = None  # it is copied to its place among the others
        else:
            self.gradients += _bytes(parameter)


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


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
