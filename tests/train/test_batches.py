"""Order, padding and packing: every sample once an epoch, little waste, and the same logits as alone."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM

from gapbridge.errors import InputError
from gapbridge.model.loss import IGNORED
from gapbridge.train.batches import Batches, collate, packs_exactly
from gapbridge.train.prompts import Example

_SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
_SMALL = {**_SIZES, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 0}


class Places:
    """Vectors that are their own place (n, 2)."""

    def read(self, places: np.ndarray) -> np.ndarray:
        return np.stack([places, places], axis=1).astype(np.float32)


def _examples(count: int, seed: int = 0) -> list[Example]:
    """Examples of 12–60 tokens whose first token is their number, the last third targets."""
    random = np.random.default_rng(seed)
    lengths = random.integers(12, 60, count)
    return [
        Example(np.r_[number % 49 + 1, random.integers(1, 50, length - 1)], np.arange(length) >= length * 2 // 3)
        for number, length in enumerate(lengths)
    ]


def _batches(count: int = 500, size: int = 16, packed: bool = False, seed: int = 3) -> Batches:
    return Batches(_examples(count), Places(), np.arange(count) + 7, size, seed, packed)


def _model(family: str) -> Any:
    torch.manual_seed(0)
    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**_SMALL))
    else:
        config = Lfm2Config(**_SMALL, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
        model = Lfm2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("count", "size"), [(500, 16), (33, 16), (5, 16), (513, 16)])
def test_an_epoch_sees_every_sample_once(count: int, size: int, packed: bool) -> None:
    batches = _batches(count, size, packed)
    for epoch in (0, 1):
        steps = [batches.samples(epoch * batches.per_epoch + step) for step in range(batches.per_epoch)]
        assert sorted(np.concatenate(steps)) == list(range(count))
        assert min(count, size) / 2 < min(map(len, steps)) <= max(map(len, steps)) <= size
        assert min(map(len, steps)) > 1
    if count > size:
        assert batches.samples(0).tolist() != batches.samples(batches.per_epoch).tolist()


def test_the_order_depends_on_seed_and_step_alone() -> None:
    one, other, another = _batches(), _batches(), _batches(seed=4)
    jumped = [other.samples(step) for step in (70, 2, 40)]
    straight = [one.samples(step) for step in range(71)]
    assert [row.tolist() for row in jumped] == [straight[step].tolist() for step in (70, 2, 40)]
    assert another.samples(0).tolist() != straight[0].tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_ranks_share_a_batch(packed: bool) -> None:
    batches = _batches(packed=packed)
    whole = batches(5, 0, 1)
    parts = [batches(5, rank, 2) for rank in (0, 1)]
    for name in ("targets", "tokens", "samples"):
        assert whole[name] == sum(part[name] for part in parts)
    together = torch.cat([part["visual_embeds"][:, 0] for part in parts])
    assert sorted(together.tolist()) == sorted(whole["visual_embeds"][:, 0].tolist())


@pytest.mark.parametrize("packed", [False, True])
def test_at_most_a_twentieth_is_padding(packed: bool) -> None:
    batches = _batches(packed=packed)
    steps = batches.per_epoch
    assert batches.useful_share(steps) >= 0.95
    computed = sum(batches(step, 0, 1)["input_ids"].numel() for step in range(steps))
    assert batches.useful_share(steps) == pytest.approx(batches.tokens(steps) / computed)


@pytest.mark.parametrize("packed", [False, True])
def test_each_vector_stands_with_its_sample(packed: bool) -> None:
    batch = _batches(packed=packed)(2, 0, 1)
    starts = batch["position_ids"] == 0 if packed else torch.arange(batch["input_ids"].shape[1])[None] == 0
    firsts = batch["input_ids"][starts.expand_as(batch["input_ids"])]
    numbers = (batch["visual_embeds"][:, 0] - 7).long() % 49 + 1
    assert firsts[firsts != 0].tolist() == numbers.tolist()


def test_packed_samples_have_the_logits_they_have_alone() -> None:
    model, examples = _model("llama"), _examples(6)
    batch = collate([examples[:4], examples[4:]], packed=True)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    for row, members in enumerate([examples[:4], examples[4:]]):
        start = 0
        for example in members:
            ids = torch.from_numpy(example.ids)[None]
            with torch.no_grad():
                alone = model(input_ids=ids, use_cache=False).logits[0]
            torch.testing.assert_close(packed[row, start : start + len(example.ids)], alone, atol=1e-5, rtol=1e-4)
            start += len(example.ids)


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_padded_samples_have_the_logits_they_have_alone(family: str) -> None:
    model, examples = _model(family), _examples(3)
    batch = collate([[example] for example in examples], packed=False)
    with torch.no_grad():
        padded = model(input_ids=batch["input_ids"], use_cache=False).logits
        for row, example in enumerate(examples):
            alone = model(input_ids=torch.from_numpy(example.ids)[None], use_cache=False).logits[0]
            torch.testing.assert_close(padded[row, : len(example.ids)], alone, atol=1e-5, rtol=1e-4)


def test_only_attention_alone_is_packed() -> None:
    assert packs_exactly(_model("llama"))
    assert not packs_exactly(_model("lfm2"))


@pytest.mark.parametrize("packed", [False, True])
def test_labels_are_the_targets_and_nothing_else(packed: bool) -> None:
    examples = _examples(4)
    rows = [examples] if packed else [[example] for example in examples]
    batch = collate(rows, packed)
    labelled = batch["labels"] != IGNORED
    assert batch["labels"][labelled].tolist() == [i for e in examples for i in e.ids[e.mask].tolist()]
    assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])
    assert batch["targets"] == sum(int(example.mask.sum()) for example in examples)


class UnitRows:
    """Unit vectors (n, 64) that their place determines."""

    def read(self, places: np.ndarray) -> np.ndarray:
        rows = np.stack([np.random.default_rng(place).normal(size=64) for place in places])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_noise_has_its_length_and_depends_on_seed_step_and_sample_alone() -> None:
    def batches(noise: float) -> Batches:
        return Batches(_examples(64), UnitRows(), np.arange(64), 64, seed=3, noise=noise)

    clean, blurred = batches(0.0), batches(0.5)
    one = blurred(0, 0, 1)["visual_embeds"]
    assert torch.equal(one, batches(0.5)(0, 0, 1)["visual_embeds"])
    torch.testing.assert_close(one.norm(dim=1), torch.ones(64))
    # Orthogonal noise of length 0.5 turns a unit row by arctan 0.5.
    cosines = (one * clean(0, 0, 1)["visual_embeds"]).sum(1)
    assert cosines.mean().item() == pytest.approx(np.cos(np.arctan(0.5)), abs=0.02)
    by_id = {tuple(row.tolist()): vector for row, vector in zip(blurred(0, 0, 1)["input_ids"], one, strict=True)}
    for rank in (0, 1):
        share = blurred(0, rank, 2)
        for row, vector in zip(share["input_ids"], share["visual_embeds"], strict=True):
            whole = next(other for ids, other in by_id.items() if ids[: len(row)] == tuple(row.tolist()))
            torch.testing.assert_close(vector, whole)
    later = {tuple(row.tolist()): vector for row, vector in zip(*_named(blurred(1, 0, 1)), strict=True)}
    assert all((later[ids] - vector).norm() > 0.1 for ids, vector in by_id.items())


def test_held_out_vectors_are_never_blurred() -> None:
    noisy = Batches(_examples(20), UnitRows(), np.arange(20), 8, seed=3, noise=0.5)
    clean = Batches(_examples(20), UnitRows(), np.arange(20), 8, seed=3)
    for one, other in zip(noisy.in_order(), clean.in_order(), strict=True):
        assert torch.equal(one["visual_embeds"], other["visual_embeds"])


def _named(batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return batch["input_ids"], batch["visual_embeds"]


def test_more_processes_than_samples_are_refused() -> None:
    batches = _batches(count=40, size=4)
    assert batches(0, 3, 4)["samples"] == 1
    with pytest.raises(InputError, match="a batch has 4 samples for 5 processes"):
        batches(0, 0, 5)
