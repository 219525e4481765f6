"""The tokenizer: whole words, nothing lost, the same every time, fit for chat and for open_clip."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from gapbridge.errors import InputError
from gapbridge.train.tokens import EOS_TOKEN, IMAGE_TOKEN, MIN_VOCABULARY_SIZE, train_tokenizer

TEXTS = ["a red circle on the left", "is there a red circle", "what color is the ring", "yes", "no"] * 20


@pytest.fixture(scope="module")
def chat() -> Any:
    return train_tokenizer(TEXTS, 400)


def test_frequent_words_are_one_token(chat: Any) -> None:
    words = "a red circle on the left"
    assert len(chat(words)["input_ids"]) == len(words.split())


def test_a_word_is_the_same_token_at_the_start_after_a_space_and_after_a_marker_or_newline(chat: Any) -> None:
    first = chat("what color")["input_ids"]
    assert chat("is what color")["input_ids"][1:] == first
    assert chat(f"{IMAGE_TOKEN}\nwhat color")["input_ids"][-2:] == first
    assert chat("<user>what color<assistant>")["input_ids"][1:-1] == first


@pytest.mark.parametrize("text", ["zygote", "Ωmega 七 🙂", "naïve, really?!", "tab\there", "two\n\nlines"])
def test_unknown_words_are_never_lost(chat: Any, text: str) -> None:
    assert chat.decode(chat(text)["input_ids"]) == text


def test_the_same_texts_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    for name, texts in (("one", TEXTS), ("two", TEXTS[::-1])):
        train_tokenizer(texts, 330).save_pretrained(tmp_path / name)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two


def test_template_writes_every_marker_and_survives_saving(chat: Any, tmp_path: Path) -> None:
    chat.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "yes"}, {"role": "assistant", "content": "no"}]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert loaded.convert_ids_to_tokens(ids) == [
        "<bos>",
        "<user>",
        "Ġyes",
        "<assistant>",
        "Ġno",
        "<eos>",
        "<assistant>",
    ]
    assert loaded.pad_token_id == 0


def test_template_takes_an_image_part(chat: Any) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "yes"}]
    text = chat.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert text == "<bos><user><image>\nyes"


def test_encoder_texts_end_with_the_largest_id_and_are_padded_with_zero() -> None:
    tokenizer = train_tokenizer(TEXTS, 400, chat=False)
    short, long = (
        tokenizer(text, padding="max_length", max_length=6, truncation=True)["input_ids"]
        for text in ("a red ring", "a red circle on the left " * 3)
    )
    eos = tokenizer.convert_tokens_to_ids(EOS_TOKEN)
    assert short[-2:] == [eos, 0] and long[-1] == eos and len(long) == 6
    assert eos == len(tokenizer) - 1
    assert tokenizer.chat_template is None


def test_too_small_or_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(InputError, match="vocabulary_size 12"):
        train_tokenizer(TEXTS, 12)
    with pytest.raises(InputError, match="at least one text"):
        train_tokenizer([" "], MIN_VOCABULARY_SIZE)
