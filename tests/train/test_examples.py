"""What the stages learn from: prompts with placeholders, vectors moved on the fly, groups held out."""

from pathlib import Path

import numpy as np
import pytest

from gapbridge.align.alignment import Alignment
from gapbridge.embeddings.shards import Shards, write_shards
from gapbridge.errors import ArtifactError
from gapbridge.train.examples import (
    AlignedTextVectors,
    ImageVectors,
    caption_examples,
    dialogue_examples,
    hold_out,
)
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer

WORDS = ["a red circle", "what color is the circle", "describe the picture", "red"]


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(train_tokenizer(WORDS * 5, 320))


def _shards(folder: Path, fingerprint: str = "f") -> Shards:
    rows = np.random.default_rng(0).normal(size=(30, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return write_shards(folder, [([f"t{n:02d}" for n in range(30)], rows)], fingerprint, 7)


def _alignment(fingerprint: str = "f") -> Alignment:
    mean = np.linspace(0.1, 0.2, 8)
    return Alignment(
        "anchor", mean * 0, mean, np.ones(8), np.empty((0, 8)), None, scale=1.0, noise=0.0, seed=0,
        text_trace=1.0, image_trace=1.0, text_count=9, image_count=9, fingerprint=fingerprint,
    )  # fmt: skip


def test_texts_are_aligned_as_they_are_read(tmp_path: Path) -> None:
    shards, alignment = _shards(tmp_path), _alignment()
    places = np.array([28, 3, 3])
    found = AlignedTextVectors(shards, alignment).read(places)
    assert np.array_equal(found, alignment.apply(shards.read(places), ["t28", "t03", "t03"]))
    assert np.abs(found - shards.read(places)).max() > 0.05


def test_images_are_left_alone_but_for_rounding(tmp_path: Path) -> None:
    shards = _shards(tmp_path)
    found = ImageVectors(shards).read(np.arange(30))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, shards.read(range(30)), atol=1e-3)


def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"encoder f, .* come from other"):
        AlignedTextVectors(_shards(tmp_path, "other"), _alignment())


def test_a_text_is_its_own_answer(prompter: Prompter) -> None:
    tokenizer = prompter._tokenizer
    example = caption_examples(prompter, ["a red circle"], "describe the picture", 3)[0]
    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert (example.ids == image).sum() == 3
    assert tokenizer.decode(example.ids[example.mask]).startswith("a red circle")
    assert not example.mask[example.ids == image].any()


def test_turns_keep_their_order(prompter: Prompter) -> None:
    turns = [{"question": "what color is the circle", "answer": "red"}, {"question": "describe", "answer": "a circle"}]
    example = dialogue_examples(prompter, [turns], 2)[0]
    said = prompter._tokenizer.decode(example.ids[example.mask], skip_special_tokens=True)
    assert said.index("red") < said.index("a circle")


def test_groups_are_held_out_whole() -> None:
    groups = [f"g{place % 40}" for place in range(400)]
    kept, heldout = hold_out(groups, 35, seed=0)
    assert sorted([*kept, *heldout]) == list(range(400))
    assert not {groups[place] for place in kept} & {groups[place] for place in heldout}
    assert len(heldout) == 30
    again, other = hold_out(groups, 35, seed=0)[1], hold_out(groups, 35, seed=1)[1]
    assert np.array_equal(heldout, again)
    assert not np.array_equal(heldout, other)


def test_at_most_a_tenth_is_held_out_and_nothing_of_one_group() -> None:
    assert len(hold_out([str(place) for place in range(50)], 256, 0)[1]) == 5
    kept, heldout = hold_out(["same"] * 50, 256, 0)
    assert (len(kept), len(heldout)) == (50, 0)
