"""The tiny language model: a causal transformer with short convolutions that learns to read before it ever sees.

It learns from dialogues about a `context` text, which stands where a picture's visual tokens will stand, and from
plain texts. This reading comprehension is what a real instruct model brings along.

Every answer weighs the same, whatever its length; a plain text weighs as one answer. The words of the context and
the questions are predicted too, at a small weight: what is asked about a scene depends on the scene, which teaches
looking it up long before the answers do.

Shapes: `b` samples of a batch, `t` tokens of the longest one.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gapbridge.errors import InputError
from gapbridge.model.llm import hide_kernel_notice
from gapbridge.train.answers import batch_maker, dialogue, in_batches, runs_of, samples_of, weighed
from gapbridge.train.loop import History, Metrics, Settings, StepLoss, fit
from gapbridge.train.optimiser import Group
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import train_tokenizer

_HELDOUT_SHARE = 0.05
_HELDOUT_ROWS = 600
_HELDOUT_BATCH = 100
_REPORTED_KINDS = 12
_TOKENIZER_ROWS = 20_000
_MAX_POSITIONS = 2048


@dataclass(frozen=True)
class Architecture:
    """The size of the model; `layers` names each layer's kind."""

    hidden_size: int
    intermediate_size: int
    layers: tuple[str, ...]
    attention_heads: int
    conv_kernel: int
    vocabulary_size: int
    initializer_range: float = 0.05
    attention_gain: float = 1.7
    """First gain of normalised queries and keys: attention can be sharp at once, so that looking up is found sooner."""


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and from how many samples at a time; None steps are one pass over the rows."""

    steps: int | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    beta2: float
    clip_norm: float
    context_weight: float
    """Weight of a token that is no answer; an answer weighs 1 in all."""


class Trained(NamedTuple):
    """What training gives: the model, its tokenizer, the losses and figures about held-out rows."""

    model: Any
    tokenizer: Any
    history: History
    metrics: dict[str, Any]


def train_language(
    rows: Sequence[Mapping[str, Any]],
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    scratch: Path | None,
    tracker: Metrics | None,
) -> Trained:
    """Train a tokenizer and a model from records with the keys id, group_id, text, context and turns.

    One group in twenty is held out, for the loss and the reading accuracies.
    Raises InputError when there are too few groups or rows, TrainingError at the first loss that is no number.
    """
    training, heldout = _split(rows)
    tokenizer = train_tokenizer(_texts(training), architecture.vocabulary_size)
    samples = samples_of(tokenizer, training, recipe.context_weight)
    steps = recipe.steps or len(samples) // recipe.batch_size
    if len(samples) < recipe.batch_size or not steps:
        raise InputError(f"the language model has {len(samples)} rows to learn from; one batch is {recipe.batch_size}")
    model = build(architecture, tokenizer, seed)
    settings = Settings(steps, recipe.warmup_fraction, recipe.beta2, recipe.clip_norm, seed=seed, precision="fp32")
    heldout = heldout[:: max(1, math.ceil(len(heldout) / _HELDOUT_ROWS))]
    heldout_batches = in_batches(samples_of(tokenizer, heldout, recipe.context_weight), _HELDOUT_BATCH)
    batch_of = batch_maker(samples, recipe.batch_size, seed)
    history = fit(model, _groups(model, recipe), batch_of, _loss, settings, scratch, tracker, "llm", heldout_batches)
    metrics = {
        "rows": len(samples),
        "heldout_rows": len(heldout),
        "steps": steps,
        "tokens": int(sum(len(sample.ids) for sample in samples)),
        "vocabulary": len(tokenizer),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": float(np.mean(history.losses[-50:])),
        "loss_heldout": history.heldout[steps],
        "reading": reading_accuracy(model, tokenizer, heldout),
    }
    return Trained(model, tokenizer, history, metrics)


def build(architecture: Architecture, tokenizer: Any, seed: int) -> Any:
    """An untrained `Lfm2ForCausalLM` for the vocabulary of `tokenizer`.

    Raises InputError when the sizes do not fit together.
    """
    from transformers import Lfm2Config, Lfm2ForCausalLM

    if architecture.hidden_size % (2 * architecture.attention_heads):
        raise InputError("llm.hidden_size must be an even multiple of llm.attention_heads")
    torch.manual_seed(seed)
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=len(architecture.layers),
        num_attention_heads=architecture.attention_heads,
        num_key_value_heads=architecture.attention_heads,
        layer_types=list(architecture.layers),
        conv_L_cache=architecture.conv_kernel,
        block_auto_adjust_ff_dim=False,
        initializer_range=architecture.initializer_range,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    hide_kernel_notice()
    model = Lfm2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_layernorm.weight", "k_layernorm.weight")):
                parameter.fill_(architecture.attention_gain)
    return model


def reading_accuracy(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of questions whose whole answer the model would say, given the dialogue up to there.

    A kind of question is named by its first two words; the most frequent kinds are listed under `kinds`, each
    with `accuracy` and `n`, and all questions under `accuracy` and `n`. Accuracy of nothing is null.
    """
    dialogues = [dialogue(row) for row in rows if row["turns"]]
    samples = [weighed(example, 0.0) for example in Prompter(tokenizer).examples(dialogues)]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    hits = [row for batch in in_batches(samples, _HELDOUT_BATCH) for row in _right_answers(model, batch)]
    for asked, right in zip(dialogues, hits, strict=True):
        for (question, _), hit in zip(asked.turns, right, strict=True):
            by_kind[" ".join(question.lower().split()[:2])].append(hit)
    frequent = sorted(by_kind, key=lambda kind: (-len(by_kind[kind]), kind))[:_REPORTED_KINDS]
    kinds = {kind: _share(by_kind[kind]) for kind in frequent}
    return {**_share([hit for right in by_kind.values() for hit in right]), "kinds": kinds}


def _split(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Training and held-out rows, apart by group: every group in the lowest twentieth of their hashes is held out."""
    ranked = sorted({row["group_id"] for row in rows}, key=lambda group: hashlib.sha256(group.encode()).digest())
    if len(ranked) < 2:
        raise InputError("the language model needs rows of at least two groups: one is held out")
    kept_out = set(ranked[: math.ceil(len(ranked) * _HELDOUT_SHARE)])
    return (
        [row for row in rows if row["group_id"] not in kept_out],
        [row for row in rows if row["group_id"] in kept_out],
    )


def _texts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows[:: max(1, len(rows) // _TOKENIZER_ROWS)]:
        yield from (text for text in (row["text"], row["context"]) if text)
        yield from (text for turn in row["turns"] for text in (turn["question"], turn["answer"]))


def _groups(model: nn.Module, recipe: Recipe) -> list[Group]:
    """The matrices inside go by Muon; embeddings, head and convolutions by AdamW. Matrices decay, gains do not."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    outside = {id(parameter) for name in ("embed_tokens", "lm_head") for parameter in _named(model, name)}
    inside = [one for one in model.parameters() if one.ndim == 2 and id(one) not in outside]
    matrices = [one for one in model.parameters() if one.ndim > 2 or id(one) in outside]
    gains = [one for one in model.parameters() if one.ndim < 2]
    return [Group(inside, rate, decay, muon=True), Group(matrices, rate, decay), Group(gains, rate, 0.0)]


def _named(model: nn.Module, part: str) -> list[nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if part in name.split(".")]


def _loss(model: Any, batch: Mapping[str, Any]) -> StepLoss:
    """Weighted cross-entropy, a mean over answers."""
    weights = batch["weights"][:, 1:]
    targets = weights > 0
    logits = model(input_ids=batch["ids"], use_cache=False).logits[:, :-1][targets]
    losses = nn.functional.cross_entropy(logits.float(), batch["ids"][:, 1:][targets], reduction="none")
    return StepLoss((losses * weights[targets]).sum(), batch["answers"], batch["tokens"], len(batch["ids"]))


def _right_answers(model: Any, batch: Mapping[str, Any]) -> list[list[bool]]:
    """For each sample and each of its answers, whether every token is the most likely one (as greedy decoding says)."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        said = model(input_ids=batch["ids"].to(device), use_cache=False).logits[:, :-1].argmax(-1).cpu()
    right = (said == batch["ids"][:, 1:]).numpy()
    targets = (batch["weights"][:, 1:] > 0).numpy()
    return [
        [bool(row_right[start:end].all()) for start, end in runs_of(row_targets)]
        for row_right, row_targets in zip(right, targets, strict=True)
    ]


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"accuracy": sum(hits) / len(hits) if hits else None, "n": len(hits)}
