"""What the two stages learn from: ids with masks, and the unit vector that stands for each sample's picture.

Shapes: `n` samples, `d` width of a vector, `k` visual tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.rows import unit_rows
from gapbridge.embeddings.shards import Shards
from gapbridge.train.loop import StepLoss
from gapbridge.train.prompts import Dialogue, Example, Prompter

_HELDOUT_SHARE = 0.1
"""At most this share of the rows is held out."""


class ImageVectors:
    """Real image vectors as they are, of length one."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 unit rows (len(places), d)."""
        return unit_rows(self._shards.read(places), str(self._shards.folder))[0].astype(np.float32)


class AlignedTextVectors:
    """Text vectors moved to where image vectors lie, when they are read (arXiv 2602.07026 §5, stage 1)."""

    def __init__(self, shards: Shards, alignment: Alignment) -> None:
        alignment.require(shards.width, shards.fingerprint)
        self._shards, self._alignment = shards, alignment
        self._ids = np.array(shards.ids)

    def read(self, places: np.ndarray) -> np.ndarray:
        """float32 unit rows (len(places), d)."""
        return self._alignment.apply(self._shards.read(places), self._ids[places])


def caption_examples(
    prompter: Prompter,
    texts: Sequence[str],
    instruction: str,
    visual_tokens: int,
    names: Sequence[str] | None = None,
) -> list[Example]:
    """Stage 1: the picture and `instruction`, answered by the text itself; errors call the texts by `names` (n,)."""
    dialogues = [Dialogue(((instruction, text),), visual_tokens=visual_tokens) for text in texts]
    return prompter.examples(dialogues, names)


def dialogue_examples(
    prompter: Prompter,
    turns: Sequence[Sequence[Mapping[str, str]]],
    visual_tokens: int,
    names: Sequence[str] | None = None,
) -> list[Example]:
    """Stage 2: the picture and its turns of question and answer; errors call the dialogues by `names` (n,)."""
    dialogues = [tuple((turn["question"], turn["answer"]) for turn in one) for one in turns]
    return prompter.examples([Dialogue(one, visual_tokens=visual_tokens) for one in dialogues], names)


def hold_out(groups: Sequence[str], rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (n,) to train on and places held out, apart by group; a hash of the group and `seed` decides.

    About `rows` rows are held out, at most a tenth; none when there are too few groups for that.
    """
    wanted = min(rows, int(len(groups) * _HELDOUT_SHARE))
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    heldout: list[int] = []
    for group in sorted(places, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()):
        if len(heldout) + len(places[group]) <= wanted:
            heldout += places[group]
    kept = np.setdiff1d(np.arange(len(groups)), heldout)
    return kept, np.array(sorted(heldout), dtype=np.int64)


def target_loss(model: Any, batch: Mapping[str, Any]) -> StepLoss:
    """Cross-entropy summed over the target tokens of a batch that `Batches` made."""
    inputs = {name: batch[name] for name in ("input_ids", "labels", "visual_embeds", "position_ids") if name in batch}
    total = model(**inputs, num_items_in_batch=1, use_cache=False).loss
    return StepLoss(total, batch["targets"], batch["tokens"], batch["samples"])
