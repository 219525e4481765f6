"""Cross-entropy over the labelled places alone, in fp32, a chunk of those places at a time.

Most places of a dialogue carry no label; their logits are never computed. bf16 losses were seen to be off by
percents, so logits are made in the model's precision and summed in fp32.
Shapes: `b` batch, `t` tokens, `m` labelled places, `h` width, `v` vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""The label of a place that is no target."""
_CHUNK_LOGITS = 1 << 25


def summed_cross_entropy(states: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], vocabulary: int) -> Tensor:
    """Loss summed over the targets, a scalar in fp32.

    `states` (b, t, h) are the last hidden states, `labels` (b, t) the tokens themselves with IGNORED where a
    token is no target (the shift by one happens here), `head` maps (m, h) to logits (m, v).
    """
    targets = labels[:, 1:]
    labelled = targets != IGNORED
    return rows_cross_entropy(states[:, :-1][labelled], targets[labelled], head, vocabulary)


def rows_cross_entropy(rows: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], vocabulary: int) -> Tensor:
    """The same of the labelled places alone: their states (m, h) and targets (m,)."""
    size = max(1, _CHUNK_LOGITS // vocabulary)
    if len(rows) <= size:
        return _chunk_loss(rows, targets, head)
    # Each chunk's logits are made again in the backward pass rather than kept.
    parts = [
        checkpoint(_chunk_loss, rows[first : first + size], targets[first : first + size], head, use_reentrant=False)
        for first in range(0, len(rows), size)
    ]
    return torch.stack(parts).sum()


def _chunk_loss(rows: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    return cross_entropy(head(rows).float(), targets, reduction="sum")
