"""A training step played through with tensors that have a shape and no content: which bytes are alive, and when.

It is the code that will run, whatever the family, the attention or the layers computed again.

Shapes: `b` rows of a batch, `t` tokens of a row, `m` targets, `d` width of a vector, `h` width of the language model,
`v` vocabulary.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gapbridge.model.loss import rows_cross_entropy
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.loop import autocast
from gapbridge.train.visual import recomputed_layers


@dataclass(frozen=True)
class StepShape:
    """One rank's share of a step: `rows` of `row_tokens` each hold `samples` pictures and `targets` labelled tokens."""

    rows: int
    row_tokens: int
    samples: int
    targets: int
    packed: bool = False


class Peak(NamedTuple):
    """The moment when most bytes were alive beside weights and moments; `kept` were at the end of the forward pass."""

    live: int
    gradients: int
    logits: int
    kept: int


def rehearse(
    model: GapbridgeForConditionalGeneration, step: StepShape, bf16: bool, gradient_checkpointing: bool, buckets: bool
) -> Peak:
    """Play a step of `model`, which lies on the meta device and whose learning parameters require gradients.

    With `buckets` the room for all gradients is there all the time, as it is where ranks sum them.
    """
    with FakeTensorMode(), recomputed_layers(model, gradient_checkpointing):
        _put_on_cpu(model)
        return _play(model, step, bf16, buckets)


def bytes_of(tensor: Tensor) -> int:
    """What the numbers of a tensor take."""
    return tensor.numel() * tensor.element_size()


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
        with autocast("cpu", bf16):
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
            kept = watch.live - watch.gradients
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
        self.gradients = sum(map(bytes_of, learning)) if buckets else 0
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
            self.gradients += bytes_of(parameter)
