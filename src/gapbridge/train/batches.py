"""Which samples a step sees, and how they lie in its tensors.

The order is a pure function of (seed, epoch, step, rank), so that a resumed run sees what an undisturbed one
does. Samples are padded on the right without a mask, which is exact for causal models, beside samples of
similar length; or they are packed, several in a row, where the model keeps them apart by their positions.

Shapes: `n` samples, `b` rows of a batch, `t` tokens of a row, `d` width of a vector, `k` visual tokens.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gapbridge.model.loss import IGNORED
from gapbridge.train.loop import demand_shares
from gapbridge.train.prompts import Example

_WINDOW_BATCHES = 32
"""Samples of similar length are looked for among so many batches."""
_ROW_SAMPLES = 4
"""A packed row is about as long as so many of the batch's longest sample."""


class Vectors(Protocol):
    """One unit vector a sample, read when it is needed."""

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 rows (len(places), d) at those places."""


class Batches:
    """`batch_of` of the training loop: the samples of `examples` (n,) with the vectors at `places` (n,).

    Every epoch sees every sample once; batches hold at most `batch_size` samples over all ranks, and nearly that.
    `noise` is the root mean square length of Gaussian noise on each vector, anew in every epoch.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vectors: Vectors,
        places: np.ndarray,
        batch_size: int,
        seed: int,
        packed: bool = False,
        noise: float = 0.0,
    ) -> None:
        self._examples, self._vectors, self._places = examples, vectors, places
        self._size, self._seed, self._packed, self._noise = batch_size, seed, packed, noise
        self._lengths = np.array([len(example.ids) for example in examples])
        self.per_epoch = -(-len(examples) // batch_size)
        self._order = lru_cache(maxsize=2)(self._epoch)

    def __call__(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """This rank's share of the step's batch: the tensors of `collate`."""
        samples = self.samples(step)
        demand_shares(len(samples), world)
        return self._collate(samples[rank::world], step)

    def samples(self, step: int) -> np.ndarray:
        """Which samples the step sees, over all ranks."""
        return self._order(step // self.per_epoch)[step % self.per_epoch]

    def in_order(self) -> list[dict[str, Any]]:
        """All samples once, shortest first: for held-out losses."""
        by_length = np.argsort(self._lengths, kind="stable")
        return [self._collate(by_length[first : first + self._size]) for first in range(0, len(by_length), self._size)]

    def useful_share(self, steps: int) -> float:
        """Of the tokens that so many steps compute on one rank, the share that belongs to a sample."""
        lengths = [self._lengths[self.samples(step)] for step in range(steps)]
        return sum(int(one.sum()) for one in lengths) / sum(_computed(one, self._packed) for one in lengths)

    def tokens(self, steps: int) -> int:
        """Useful tokens of so many steps."""
        return int(sum(self._lengths[self.samples(step)].sum() for step in range(steps)))

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self._seed, epoch])
        shuffled = random.permutation(len(self._examples))
        # Packing fills rows best from samples of all lengths; padding wants them alike.
        batches = list(self._cut(shuffled) if self._packed else self._alike(shuffled))
        return [batches[place] for place in random.permutation(len(batches))]

    def _alike(self, shuffled: np.ndarray) -> Iterator[np.ndarray]:
        batches = self._cut(shuffled)
        for first in range(0, len(batches), _WINDOW_BATCHES):
            window = batches[first : first + _WINDOW_BATCHES]
            inside = np.concatenate(window)
            yield from np.array_split(inside[np.argsort(self._lengths[inside], kind="stable")], len(window))

    def _cut(self, samples: np.ndarray) -> list[np.ndarray]:
        """Nearly equal batches of at most `batch_size`: none so small that a rank would go without."""
        return np.array_split(samples, self.per_epoch)

    def _collate(self, samples: np.ndarray, step: int | None = None) -> dict[str, Any]:
        rows = rows_of(self._lengths[samples], self._packed)
        order = samples[np.array([place for row in rows for place in row], dtype=np.int64)]
        chosen = [[self._examples[samples[place]] for place in row] for row in rows]
        vectors = self._vectors.read(self._places[order])
        if self._noise and step is not None:
            vectors = self._blurred(vectors, order, step)
        return collate(chosen, self._packed) | {"visual_embeds": torch.from_numpy(vectors)}

    def _blurred(self, vectors: np.ndarray, samples: np.ndarray, step: int) -> np.ndarray:
        """Unit vectors (n, d) with noise that depends on (seed, step, sample), whatever rank draws it."""
        noise = np.stack(
            [
                np.random.default_rng([self._seed, step, sample]).standard_normal(vectors.shape[1], dtype=np.float32)
                for sample in samples
            ]
        )
        blurred = vectors + noise * np.float32(self._noise / np.sqrt(vectors.shape[1]))
        return blurred / np.linalg.norm(blurred, axis=1, keepdims=True)


def collate(rows: Sequence[Sequence[Example]], packed: bool) -> dict[str, Any]:
    """Tensors of rows that hold one example each, or several if `packed`.

    `input_ids`, `labels` (b, t) int64, IGNORED where a token is no target; `position_ids` (b, t) that start
    again with each example, if packed; the counts `targets`, `tokens`, `samples`.
    """
    width = max(sum(len(example.ids) for example in row) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    positions = np.tile(np.arange(width), (len(rows), 1))
    for number, row in enumerate(rows):
        start = 0
        for example in row:
            end = start + len(example.ids)
            ids[number, start:end] = example.ids
            labels[number, start:end] = np.where(example.mask, example.ids, IGNORED)
            labels[number, start] = IGNORED  # nothing of its own stands before it
            positions[number, start:] = np.arange(width - start)
            start = end
        positions[number, start:] = np.arange(width - start)
    batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if packed:
        batch["position_ids"] = torch.from_numpy(positions)
    examples = [example for row in rows for example in row]
    return batch | {
        "targets": int((labels != IGNORED).sum()),
        "tokens": sum(len(example.ids) for example in examples),
        "samples": len(examples),
    }


def packs_exactly(model: Any) -> bool:
    """Whether this causal model keeps packed samples apart: found out, on two short samples.

    Attention does, by positions; a convolution or a recurrent state looks across the border.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    samples = [torch.arange(3, 10) % vocabulary, torch.arange(11, 20) % vocabulary]
    device = next(model.parameters()).device
    packed = torch.cat(samples)[None].to(device)
    positions = torch.cat([torch.arange(len(sample)) for sample in samples])[None].to(device)
    with torch.no_grad():
        together = model(input_ids=packed, position_ids=positions, use_cache=False).logits[0, len(samples[0]) :]
        alone = model(input_ids=samples[1][None].to(device), use_cache=False).logits[0]
    difference: Tensor = (together - alone).abs().max()
    return difference.item() <= 1e-4 * alone.abs().max().item()


def _computed(lengths: np.ndarray, packed: bool) -> int:
    if not len(lengths):
        return 0
    rows = rows_of(lengths, packed)
    return len(rows) * max(int(lengths[row].sum()) for row in rows)


def rows_of(lengths: np.ndarray, packed: bool) -> list[list[int]]:
    """Which samples share a row: one each, or the longest first into the emptiest row."""
    if not packed:
        return [[place] for place in range(len(lengths))]
    count = max(1, -(-int(lengths.sum()) // (int(lengths.max()) * _ROW_SAMPLES)))
    rows: list[list[int]] = [[] for _ in range(count)]
    filled = np.zeros(count, dtype=np.int64)
    for place in np.argsort(-lengths, kind="stable"):
        emptiest = int(filled.argmin())
        rows[emptiest].append(int(place))
        filled[emptiest] += lengths[place]
    return [row for row in rows if row]
