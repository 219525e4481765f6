"""The tiny language model: it learns to read, gives the same bytes twice, and is an ordinary folder, or is pinned."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapbridge.errors import ArtifactError, InputError, TrainingError
from gapbridge.model.llm import load_llm, pin_llm, save_llm, weights_fingerprint
from gapbridge.train.answers import samples_of
from gapbridge.train.language import Architecture, Recipe, Trained, reading_accuracy, train_language
from gapbridge.train.prompts import Prompter

ARCHITECTURE = Architecture(32, 64, ("conv", "full_attention"), 2, 3, 400, attention_gain=1.0)
RECIPE = Recipe(150, 16, 5e-3, 0.05, 0.1, 0.98, 1.0, 0.1)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def row(number: int, form: str = "a handwritten {}") -> dict[str, Any]:
    digit = DIGITS[number % 10]
    turns = [
        {"question": "is it even?", "answer": "no" if number % 2 else "yes"},
        {"question": "which digit is this?", "answer": digit},
    ]
    return {
        "id": str(number),
        "group_id": f"scan {number}",
        "text": None,
        "context": form.format(digit),
        "turns": turns[:: 1 if number % 3 else -1],
    }


def plain(number: int) -> dict[str, Any]:
    return {
        "id": f"t{number}",
        "group_id": f"t{number}",
        "text": f"{DIGITS[number % 10]} .",
        "context": None,
        "turns": [],
    }


Rows = list[dict[str, Any]]

ROWS = [row(number) for number in range(400)] + [plain(number) for number in range(100)]


def train(
    rows: Rows = ROWS, architecture: Architecture = ARCHITECTURE, recipe: Recipe = RECIPE, seed: int = 0
) -> Trained:
    return train_language(rows, architecture, recipe, seed, None, None)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train()


@pytest.fixture(scope="module")
def saved(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    save_llm(folder, trained.model, trained.tokenizer)
    return folder


def test_it_learns_to_read_and_says_how_well(trained: Trained) -> None:
    reading = trained.metrics["reading"]
    assert reading["accuracy"] > 0.9
    assert set(reading["kinds"]) == {"is it", "which digit"}
    assert sum(kind["n"] for kind in reading["kinds"].values()) == reading["n"] > 0
    assert trained.history.losses[0] > trained.metrics["loss_heldout"]
    assert trained.metrics["rows"] + trained.metrics["heldout_rows"] == len(ROWS)
    json.dumps(trained.metrics, allow_nan=False)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(trained: Trained, saved: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        again = train(seed=seed)
        save_llm(tmp_path / name, again.model, again.tokenizer)
    files = sorted(file.name for file in saved.iterdir())
    assert [(tmp_path / "same" / name).read_bytes() for name in files] == [
        (saved / name).read_bytes() for name in files
    ]
    assert weights_fingerprint(tmp_path / "other") != weights_fingerprint(saved)


def test_the_folder_opens_and_generates_the_answer(saved: Path) -> None:
    model, tokenizer = load_llm(saved)
    prompter = Prompter(tokenizer)
    ids = torch.tensor([prompter.ask("which digit is this?", context="a handwritten seven")])
    with torch.inference_mode():
        said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True) == "seven"
    assert said[0, -1] == prompter.end_id


def test_left_padding_does_not_change_what_is_said(saved: Path) -> None:
    model, tokenizer = load_llm(saved)
    short, long = (
        Prompter(tokenizer).ask("which digit is this?", context=text)
        for text in ("a handwritten two", "a handwritten a handwritten a handwritten six")
    )
    gap = len(long) - len(short)
    ids = torch.tensor([[tokenizer.pad_token_id] * gap + short, long])
    mask = torch.tensor([[0] * gap + [1] * len(short), [1] * len(long)])
    with torch.inference_mode():
        together = model(input_ids=ids, attention_mask=mask).logits[0, -1]
        alone = model(input_ids=torch.tensor([short])).logits[0, -1]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_whole_answer_must_be_right(saved: Path) -> None:
    model, tokenizer = load_llm(saved)
    right = row(7)
    wrong = {**right, "turns": [{"question": "which digit is this?", "answer": "seven eight"}]}
    assert reading_accuracy(model, tokenizer, [right])["accuracy"] == 1.0
    assert reading_accuracy(model, tokenizer, [wrong])["accuracy"] == 0.0
    assert reading_accuracy(model, tokenizer, [])["accuracy"] is None


def test_words_of_the_context_are_targets_only_at_a_weight() -> None:
    weighed, unweighed = (train(recipe=replace(RECIPE, steps=40, context_weight=weight)) for weight in (0.1, 0.0))
    question = Prompter(weighed.tokenizer).ask("which digit is this?", context="a handwritten one")

    def surprise(model: Any) -> float:
        ids = torch.tensor([question])
        with torch.inference_mode():
            return model(input_ids=ids, labels=ids).loss.item()

    assert surprise(weighed.model) < surprise(unweighed.model) / 2


def test_a_marker_in_a_plain_text_stays_words(trained: Trained) -> None:
    (sample,) = samples_of(trained.tokenizer, [{**plain(1), "text": "a <eos> b"}], 0.0)
    assert (sample.ids == trained.tokenizer.eos_token_id).sum() == 1
    assert trained.tokenizer.decode(sample.ids[1:-1]) == "a <eos> b"


def test_other_weights_than_those_in_the_card_are_refused(saved: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(saved, damaged)
    weights = damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match="not those"):
        load_llm(damaged)


def test_a_pinned_folder_is_named_and_not_copied(saved: Path, tmp_path: Path) -> None:
    pin_llm(tmp_path, str(saved), None)
    assert [file.name for file in tmp_path.iterdir()] == ["llm.json"]
    model, _ = load_llm(tmp_path)
    assert not model.training
    assert json.loads((tmp_path / "llm.json").read_text())["fingerprint"] == weights_fingerprint(saved)


def test_what_cannot_be_pinned_is_an_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set llm\.revision"):
        pin_llm(tmp_path, "somebody/something", None)
    bare = tmp_path / "bare"
    shutil.copytree(saved, bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        pin_llm(tmp_path, str(bare), None)


def test_too_little_to_learn_from_is_an_error() -> None:
    with pytest.raises(InputError, match="two groups"):
        train(ROWS[:1])
    with pytest.raises(InputError, match="one batch is 16"):
        train(ROWS[:5])
    with pytest.raises(InputError, match="even multiple"):
        train(architecture=Architecture(30, 64, ("conv",), 4, 3, 400))


def test_training_stops_at_the_first_number_that_is_none() -> None:
    with pytest.raises(TrainingError, match="llm step"):
        train(recipe=Recipe(60, 16, 1e30, 0.05, 0.1, 0.98, np.inf, 0.1))


def test_rows_that_run_out_are_used_again() -> None:
    assert train(ROWS[:60], recipe=Recipe(8, 16, 1e-3, 0.0, 0.1, 0.98, 1.0, 0.1)).metrics["steps"] == 8


def test_where_bf16_is_the_rule_it_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(RECIPE, steps=5)
    expected = train(recipe=short).history.losses
    monkeypatch.setattr("gapbridge.train.loop.in_bf16", lambda precision: precision != "fp32")  # as on a GPU
    assert train(recipe=short).history.losses == expected
