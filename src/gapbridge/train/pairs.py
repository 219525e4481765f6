"""Pairs of pictures and texts as training batches of the dual encoder.

Shapes: `n` pairs, `b` pairs of one batch, `t` tokens, `s` pixels a side, `g` wordings.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MAX_WORDINGS = 1024
_WORDING_SHARES = (0.002, 0.98)
"""Wordings rarer or more frequent than this among the texts teach nothing."""


@dataclass(frozen=True)
class Pairs:
    """Pictures (n, 3, s, s) uint8 and texts with the group of each; pairs of one group or text are no negatives."""

    pictures: Tensor
    texts: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Mixing:
    """How pairs become batches. `steps` None means one pass over the pairs."""

    steps: int | None
    batch_size: int
    group_rows: int
    """So many consecutive records stay together in a batch; 1 mixes all freely."""
    wording_fraction: float
    """Of the steps, the first ones: both towers also say which wordings the text holds."""
    wording_weight: float


class Batches:
    """Batch of a step as a pure function of (seed, step): runs of consecutive records, reshuffled each pass."""

    def __init__(self, pairs: Pairs, tokenizer: Any, context_length: int, mixing: Mixing, seed: int) -> None:
        """`steps` is the recipe's, or what one pass takes; a group longer than a batch or the set is cut to it."""
        self.pictures, self.mixing, self.seed = pairs.pictures, mixing, seed
        self.tokens = tokenize(tokenizer, pairs.texts, context_length)
        self.wordings = _wordings(self.tokens)
        self.groups, self.texts = _codes(pairs.groups), _codes(pairs.texts)
        rows = min(mixing.group_rows, mixing.batch_size, len(pairs.texts))
        self.starts = torch.arange(0, len(pairs.texts), rows).clamp_(max=len(pairs.texts) - rows)
        self.run = torch.arange(rows)
        self.runs = min(mixing.batch_size // rows, len(self.starts))
        self.steps = mixing.steps or math.ceil(len(self.starts) / self.runs)

    def __call__(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """This rank's pairs of the batch; each rank contrasts its own pairs alone."""
        places = range(step * self.runs + rank, (step + 1) * self.runs, world)
        starts = [self._start(place) for place in places]
        rows = (torch.stack(starts)[:, None] + self.run).flatten()
        groups, texts = self.groups[rows], self.texts[rows]
        same = (groups[:, None] == groups) | (texts[:, None] == texts)
        early = step < self.mixing.wording_fraction * self.steps
        return {
            "pictures": self.pictures[rows],
            "tokens": self.tokens[rows],
            "wordings": self.wordings[rows].float(),
            "wording_weight": self.mixing.wording_weight if early else 0.0,
            "excluded": same.fill_diagonal_(False),
        }

    def _start(self, place: int) -> Tensor:
        number, within = divmod(place, len(self.starts))
        return self.starts[_order(self.seed, number, len(self.starts))[within]]


@lru_cache(maxsize=2)
def _order(seed: int, number: int, count: int) -> np.ndarray:
    """The order of pass `number`."""
    return np.random.default_rng((seed, number)).permutation(count)


def tokenize(tokenizer: Any, texts: Sequence[str], context_length: int) -> Tensor:
    """Token ids (n, t) with t the context length; a longer text loses its end but keeps the end marker."""
    settings = {"padding": "max_length", "truncation": True, "max_length": context_length}
    return tokenizer([" ".join(text.split()) for text in texts], return_tensors="pt", **settings).input_ids


def _wordings(tokens: Tensor) -> Tensor:
    """Which of the most telling tokens and pairs of tokens each row of (n, t) holds, (n, g) bool."""
    held = [_grams(row[row != 0].tolist()) for row in tokens]
    counts = Counter(gram for grams in held for gram in grams)
    low, high = (share * len(held) for share in _WORDING_SHARES)
    kept = sorted((-count, gram) for gram, count in counts.items() if low <= count <= high)[:_MAX_WORDINGS]
    column = {gram: place for place, (_, gram) in enumerate(kept)}
    found = torch.zeros((len(held), len(column)), dtype=torch.bool)
    for row, grams in enumerate(held):
        found[row, [column[gram] for gram in grams if gram in column]] = True
    return found


def _grams(ids: list[int]) -> set[tuple[int, ...]]:
    """Tokens and pairs of neighbouring tokens, without the markers at both ends."""
    inner = ids[1:-1]
    return {(token,) for token in inner} | set(pairwise(inner))


def _codes(values: Sequence[str]) -> Tensor:
    """A number for each distinct value, (n,)."""
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(value, len(known)) for value in values])
