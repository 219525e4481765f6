"""The tiny language model: a causal transformer with short convolutions that learns to read before it ever sees.

It learns from dialogues about a `context` text, which stands where a picture's visual tokens will stand, and from
plain texts. This reading comprehension is what a real instruct model brings along. The result is an ordinary
Hugging Face folder (safetensors, tokenizer, chat template); a pinned model is named instead, by revision and by
the digest of its weights, and nothing later knows which it was.

Every answer weighs the same, whatever its length; a plain text weighs as one answer. The words of the context and
the questions are predicted too, at a small weight: what is asked about a scene depends on the scene, which teaches
looking it up long before the answers do.

Shapes: `b` samples of a batch, `t` tokens of the longest one, `v` vocabulary.
"""

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gapbridge.artifacts import file_digest, read_json, write_json
from gapbridge.errors import ArtifactError, InputError
from gapbridge.train.loop import Group, History, Metrics, Settings, StepLoss, fit
from gapbridge.train.prompts import Dialogue, Example, Prompter
from gapbridge.train.tokens import train_tokenizer

FORMAT_VERSION = 1
_HELDOUT_SHARE = 0.05
_HELDOUT_ROWS = 600
_HELDOUT_BATCH = 100
_REPORTED_KINDS = 12
_TOKENIZER_ROWS = 20_000
_WINDOW_BATCHES = 32  # samples of similar length are batched inside a window of so many batches
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


class _Sample(NamedTuple):
    """`ids` (t,) and the weight (t,) of each as a target; the weights of `answers` answers sum to 1 each."""

    ids: np.ndarray
    weights: np.ndarray
    answers: int


def train_language(
    rows: Sequence[Mapping[str, Any]],
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    scratch: Path | None,
    tracker: Metrics | None,
) -> Trained:
    """Train a tokenizer and a model from records with the keys group_id, text, context and turns.

    One group in twenty is held out, for the loss and the reading accuracies.
    Raises InputError when there are too few groups or rows, TrainingError at the first loss that is no number.
    """
    training, heldout = _split(rows)
    tokenizer = train_tokenizer(_texts(training), architecture.vocabulary_size)
    samples = _samples(tokenizer, training, recipe.context_weight)
    steps = recipe.steps or len(samples) // recipe.batch_size
    if len(samples) < recipe.batch_size or not steps:
        raise InputError(f"the language model has {len(samples)} rows to learn from; one batch is {recipe.batch_size}")
    model = build(architecture, tokenizer, seed)
    settings = Settings(steps, recipe.warmup_fraction, recipe.beta2, recipe.clip_norm, seed=seed)
    heldout = heldout[:: max(1, math.ceil(len(heldout) / _HELDOUT_ROWS))]
    heldout_batches = _batches(_samples(tokenizer, heldout, recipe.context_weight), _HELDOUT_BATCH)
    with flushed_denormals():
        history = fit(
            model,
            _groups(model, recipe),
            _batch_maker(samples, recipe.batch_size, seed),
            _loss,
            settings,
            scratch,
            tracker,
            "llm",
            heldout_batches,
        )
        accuracies = reading_accuracy(model, tokenizer, heldout)
    metrics = {
        "rows": len(samples),
        "heldout_rows": len(heldout),
        "steps": steps,
        "tokens": int(sum(len(sample.ids) for sample in samples)),
        "vocabulary": len(tokenizer),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": float(np.mean(history.losses[-50:])),
        "loss_heldout": history.heldout[steps],
        "reading": accuracies,
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
    dialogues = [_dialogue(row) for row in rows if row["turns"]]
    samples = [_weighed(example, 0.0) for example in Prompter(tokenizer).examples(dialogues)]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    hits = [row for batch in _batches(samples, _HELDOUT_BATCH) for row in _right_answers(model, batch)]
    for dialogue, right in zip(dialogues, hits, strict=True):
        for (question, _), hit in zip(dialogue.turns, right, strict=True):
            by_kind[" ".join(question.lower().split()[:2])].append(hit)
    frequent = sorted(by_kind, key=lambda kind: (-len(by_kind[kind]), kind))[:_REPORTED_KINDS]
    kinds = {kind: _share(by_kind[kind]) for kind in frequent}
    return {**_share([hit for right in by_kind.values() for hit in right]), "kinds": kinds}


def save_llm(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a trained model as a Hugging Face folder with `llm.json` beside its weights."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors leaves its files readable by their owner alone
    _write_card(folder, None, None, weights_fingerprint(folder))


def pin_llm(folder: Path, pretrained: str, revision: str | None) -> dict[str, Any]:
    """Write `llm.json` alone, for a model that lies in a folder or on the hub.

    Raises InputError when it cannot be had, holds no safetensors, or has no chat template.
    """
    source = _snapshot(pretrained, revision)
    fingerprint = weights_fingerprint(source)
    _, tokenizer = _open(source)
    Prompter(tokenizer)
    _write_card(folder, pretrained, revision, fingerprint)
    return {"pretrained": pretrained, "revision": revision, "vocabulary": len(tokenizer)}


def load_llm(folder: Path) -> tuple[Any, Any]:
    """The causal language model (float32, evaluation mode) and tokenizer that `folder` names.

    Raises ArtifactError when the weights are not those that the stage `llm` saw.
    """
    card = read_json(folder / "llm.json")
    if card.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{folder}: llm.json has another format version; run the stage llm again")
    source = folder if card["pretrained"] is None else _snapshot(card["pretrained"], card["revision"])
    if weights_fingerprint(source) != card["fingerprint"]:
        raise ArtifactError(f"{source}: its weights are not those that llm.json names; run the stage llm again")
    return _open(source)


def weights_fingerprint(folder: Path) -> str:
    """sha256 over the names and digests of the safetensors files of `folder`.

    Raises InputError when there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: holds no safetensors weights; pin a model that has them")
    return hashlib.sha256("".join(f"{file.name} {file_digest(file)}\n" for file in files).encode()).hexdigest()


def hide_kernel_notice() -> None:
    """Let transformers not recommend a kernel for the short convolutions: on a CPU there is none to install."""
    logger = logging.getLogger("transformers.integrations.hub_kernels")
    if _is_no_kernel_notice not in logger.filters:
        logger.addFilter(_is_no_kernel_notice)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small to matter count as zero here: they cost a hundred times the time of others."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


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


def _dialogue(row: Mapping[str, Any]) -> Dialogue:
    return Dialogue(tuple((turn["question"], turn["answer"]) for turn in row["turns"]), row["context"])


def _samples(tokenizer: Any, rows: Sequence[Mapping[str, Any]], context_weight: float) -> list[_Sample]:
    """Dialogues first, then plain texts."""
    examples = Prompter(tokenizer).examples([_dialogue(row) for row in rows if row["turns"]])
    texts = [row["text"] for row in rows if not row["turns"]]
    return [_weighed(example, context_weight) for example in examples + _plain_texts(tokenizer, texts)]


def _plain_texts(tokenizer: Any, texts: Sequence[str]) -> list[Example]:
    """`<bos> text <eos>`, every token but the first a target."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ids = [np.array([tokenizer.bos_token_id, *one, tokenizer.eos_token_id], dtype=np.int64) for one in encoded]
    return [Example(one, np.arange(len(one)) > 0) for one in ids]


def _weighed(example: Example, context_weight: float) -> _Sample:
    """Each run of target tokens shares the weight 1."""
    runs = _runs(example.mask)
    weights = np.full(len(example.ids), context_weight, dtype=np.float32)
    weights[0] = 0.0  # nothing stands before the first token to predict it from
    for start, end in runs:
        weights[start:end] = 1 / (end - start)
    return _Sample(example.ids, weights, len(runs))


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of true values in `mask` (t,)."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True))


def _batch(samples: Sequence[_Sample]) -> dict[str, Any]:
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


def _batches(samples: Sequence[_Sample], size: int) -> list[dict[str, Any]]:
    return [_batch(samples[start : start + size]) for start in range(0, len(samples), size)]


def _batch_maker(samples: Sequence[_Sample], size: int, seed: int) -> Callable[[int, int, int], dict[str, Any]]:
    """Batches of similar length; which rows a step gets depends on (seed, epoch, step) alone."""
    lengths = np.array([len(sample.ids) for sample in samples])
    per_epoch = len(samples) // size

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return _epoch_order(lengths, size, np.random.default_rng([seed, epoch]))

    def batch_of(step: int, rank: int, world: int) -> dict[str, Any]:
        rows = order(step // per_epoch)[step % per_epoch]
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


def _groups(model: nn.Module, recipe: Recipe) -> list[Group]:
    """Matrices decay, gains do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    gains = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [
        Group(matrices, recipe.learning_rate, recipe.weight_decay),
        Group(gains, recipe.learning_rate, 0.0),
    ]


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
        [bool(row_right[start:end].all()) for start, end in _runs(row_targets)]
        for row_right, row_targets in zip(right, targets, strict=True)
    ]


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"accuracy": sum(hits) / len(hits) if hits else None, "n": len(hits)}


def _write_card(folder: Path, pretrained: str | None, revision: str | None, fingerprint: str) -> None:
    card = {"pretrained": pretrained, "revision": revision, "fingerprint": fingerprint}
    write_json(folder / "llm.json", {"format_version": FORMAT_VERSION, **card})


def _snapshot(pretrained: str, revision: str | None) -> Path:
    """The local folder of a pinned model; a hub id needs a revision, or the weights could change unseen."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(pretrained).is_dir():
        return Path(pretrained)
    if revision is None:
        raise InputError(f"llm.pretrained {pretrained}: no such folder; for a hub id set llm.revision to a commit")
    try:
        return Path(
            snapshot_download(pretrained, revision=revision, allow_patterns=["*.safetensors", "*.json", "*.jinja"])
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"llm.pretrained {pretrained} at {revision}: cannot be had ({reason})") from error


def _is_no_kernel_notice(record: logging.LogRecord) -> bool:
    return "causal_conv1d" not in record.getMessage()


def _open(source: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{source}: does not open as a causal language model ({reason})") from error
    hide_kernel_notice()
    return model.eval(), tokenizer
