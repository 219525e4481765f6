"""Samples whose answers weigh the same whatever their length, and batches of similar length.

Each answer shares the weight 1 among its tokens, a plain text weighs as one answer, and every other token has the
small weight of a context.

Shapes: `b` samples of a batch, `t` tokens of the longest one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from gapbridge.train.loop import demand_shares
from gapbridge.train.prompts import Dialogue, Example, Prompter, record_names

_WINDOW_BATCHES = 32  # samples of similar length are batched inside a window of so many batches


class Sample(NamedTuple):
    """`ids` (t,) and the weight (t,) of each as a target; the weights of `answers` answers sum to 1 each."""

    ids: np.ndarray
    weights: np.ndarray
    answers: int


def dialogue(row: Mapping[str, Any]) -> Dialogue:
    """The turns of a record about its context."""
    return Dialogue(tuple((turn["question"], turn["answer"]) for turn in row["turns"]), row["context"])


def samples_of(tokenizer: Any, rows: Sequence[Mapping[str, Any]], context_weight: float) -> list[Sample]:
    """The records as samples, dialogues first, then plain texts."""
    asked = [row for row in rows if row["turns"]]
    names = record_names("llm", (row["id"] for row in asked))
    examples = Prompter(tokenizer).examples([dialogue(row) for row in asked], names)
    texts = [row["text"] for row in rows if not row["turns"]]
    return [weighed(example, context_weight) for example in examples + _plain_texts(tokenizer, texts)]


def _plain_texts(tokenizer: Any, texts: Sequence[str]) -> list[Example]:
    """`<bos> text <eos>`, every token but the first a target."""
    if not texts:
        return []
    # Whatever a text says, it is words: a marker in it must not become one.
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids = [np.array([tokenizer.bos_token_id, *one, tokenizer.eos_token_id], dtype=np.int64) for one in encoded]
    return [Example(one, np.arange(len(one)) > 0) for one in ids]


def weighed(example: Example, context_weight: float) -> Sample:
    """The example with a weight of 1 for each of its answers."""
    runs = runs_of(example.mask)
    weights = np.full(len(example.ids), context_weight, dtype=np.float32)
    weights[0] = 0.0  # nothing stands before the first token to predict it from
    for start, end in runs:
        weights[start:end] = 1 / (end - start)
    return Sample(example.ids, weights, len(runs))


def runs_of(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of true values in `mask` (t,)."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True))


def _batch(samples: Sequence[Sample]) -> dict[str, Any]:
    """Right-padded tensors: ids (b, t) int64 and weights (b, t) float32, zero on padding.

    Attention and convolution are causal, so padding on the right needs no attention mask.
    """
    longest = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), longest), dtype=np.int64)
    weights = np.zeros((len(samples), longest), dtype=np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, : len(sample.ids)] = sample.weights
    return {
        "ids": torch.from_numpy(ids),
        "weights": torch.from_numpy(weights),
        "answers": sum(sample.answers for sample in samples),
        "tokens": sum(len(sample.ids) for sample in samples),
    }


def in_batches(samples: Sequence[Sample], size: int) -> list[dict[str, Any]]:
    """All samples in their order, `size` at a time."""
    return [_batch(samples[start : start + size]) for start in range(0, len(samples), size)]


def batch_maker(samples: Sequence[Sample], size: int, seed: int) -> Callable[[int, int, int], dict[str, Any]]:
    """Batches of similar length; which rows a step gets depends on (seed, epoch, step) alone."""
    lengths = np.array([len(sample.ids) for sample in samples])
    per_epoch = len(samples) // size

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return _epoch_order(lengths, size, np.random.default_rng([seed, epoch]))

    def batch_of(step: int, rank: int, world: int) -> dict[str, Any]:
        rows = order(step // per_epoch)[step % per_epoch]
        demand_shares(len(rows), world)
        return _batch([samples[row] for row in rows[rank::world]])

    return batch_of


def _epoch_order(lengths: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Row numbers (batches, size): shuffled, sorted by length inside windows, batches shuffled again."""
    whole = random.permutation(len(lengths))[: len(lengths) // size * size]
    windows = [whole[start : start + size * _WINDOW_BATCHES] for start in range(0, len(whole), size * _WINDOW_BATCHES)]
    batches = []
    for window in windows:
        sorted_rows = window[np.argsort(lengths[window], kind="stable")].reshape(-1, size)
        batches.append(sorted_rows[random.permutation(len(sorted_rows))])
    return np.concatenate(batches)
