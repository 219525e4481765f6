"""Five families, each a tiny checkpoint on disk with its manner of template: prompts and masks token by token.

What is expected comes from the model's own `apply_chat_template`, and where answers lie in it from the characters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
)

from gapbridge.errors import InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor
from gapbridge.model.assemble import AdapterShape, ImageCap, assemble, make_processor, placeholder, save
from gapbridge.model.llm import load_llm, pin_llm
from gapbridge.model.processor import TEMPLATE_DATE
from gapbridge.train.batches import packs_exactly
from gapbridge.train.examples import dialogue_examples
from gapbridge.train.prompts import Dialogue, Prompter
from gapbridge.train.tokens import IMAGE_TOKEN
from gapbridge.train.visual import Course, Material, groups_of, train
from tests.train import small
from tests.train.test_prompts import TOKENIZERS

_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2,
          "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": None}  # fmt: skip
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"],
          "tie_word_embeddings": True}  # fmt: skip
FAMILIES: dict[str, tuple[str, Callable[[int], PreTrainedConfig]]] = {
    "llama": ("llama", lambda v: LlamaConfig(**_SMALL, vocab_size=v)),
    "qwen3": ("hybrid", lambda v: Qwen3Config(**_SMALL, vocab_size=v, head_dim=16, tie_word_embeddings=True)),
    "mistral": ("mistral", lambda v: MistralConfig(**_SMALL, vocab_size=v, sliding_window=16)),
    "gemma": ("gemma", lambda v: Gemma3TextConfig(**_SMALL, **_GEMMA, vocab_size=v)),
    "phi": ("phi", lambda v: Phi3Config(**_SMALL, vocab_size=v)),
}
TURNS = (("what color is the ring", "red"), ("is there a red ring", "yes , 2 rings\nred"), ("yes", "on the left"))
SPOKEN = {"date_string": TEMPLATE_DATE, "enable_thinking": False}


class Opened(NamedTuple):
    """A checkpoint as the stages see it."""

    name: str
    model: Any
    tokenizer: Any
    folder: Path


@pytest.fixture(params=sorted(FAMILIES), scope="module")
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    manner, config_of = FAMILIES[request.param]
    tokenizer = TOKENIZERS[manner]()
    checkpoint, pin = tmp_path_factory.mktemp(request.param), tmp_path_factory.mktemp("pin")
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(config_of(len(tokenizer))).save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    pin_llm(pin, str(checkpoint), None)
    return Opened(request.param, *load_llm(pin), checkpoint)


def _messages(turns: tuple[tuple[str, str], ...], question: str | None = None) -> list[dict[str, str]]:
    spoken = [text for turn in turns for text in turn] + ([question] if question else [])
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(spoken)]


def _rendered(tokenizer: Any, messages: list[dict[str, str]], prompt: bool = False) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **SPOKEN)


def _ids(tokenizer: Any, messages: list[dict[str, str]], prompt: bool = False) -> list[int]:
    told = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, **SPOKEN)
    return told["input_ids"] if isinstance(told, dict) or hasattr(told, "input_ids") else told


def _answers_by_characters(tokenizer: Any, turns: tuple[tuple[str, str], ...], end_id: int) -> np.ndarray:
    """True where a token holds characters of an answer, and at the end marker behind each."""
    text = _rendered(tokenizer, _messages(turns))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    mask, searched = np.zeros(len(ids), dtype=bool), 0
    for question, answer in turns:
        start = text.index(answer, text.index(question, searched) + len(question))
        end = searched = start + len(answer)
        inside = [place for place, (first, last) in enumerate(spans) if first < end and last > start]
        closing = next(place for place in range(inside[-1] + 1, len(ids)) if ids[place] == end_id)
        mask[inside[0] : closing + 1] = True
    return mask


def test_ids_are_those_of_its_own_template(opened: Opened) -> None:
    prompter = Prompter(opened.tokenizer)
    for count in (1, 2, 3):
        (example,) = prompter.examples([Dialogue(TURNS[:count])])
        assert example.ids.tolist() == _ids(opened.tokenizer, _messages(TURNS[:count]))
    asked = prompter.ask("is there a ring", history=TURNS[:2])
    assert asked == _ids(opened.tokenizer, _messages(TURNS[:2], "is there a ring"), prompt=True)


def test_targets_are_the_characters_of_the_answers_and_what_ends_them(opened: Opened) -> None:
    """Mistral writes a space before an answer, which is its answer's first token: nothing else may differ."""
    prompter = Prompter(opened.tokenizer)
    for count in (1, 2, 3):
        (example,) = prompter.examples([Dialogue(TURNS[:count])])
        expected = _answers_by_characters(opened.tokenizer, TURNS[:count], prompter.end_id)
        more = np.flatnonzero(example.mask != expected)
        told = opened.tokenizer.convert_ids_to_tokens(example.ids[more].tolist())
        assert not len(more) or (opened.name == "mistral" and set(told) <= {"Ġ"}), told


def test_a_picture_takes_its_places_before_the_first_question(opened: Opened) -> None:
    (example,) = Prompter(opened.tokenizer).examples([Dialogue(TURNS[:2], visual_tokens=3)])
    pictured = ((IMAGE_TOKEN * 3 + "\n" + TURNS[0][0], TURNS[0][1]), TURNS[1])
    assert example.ids.tolist() == _ids(opened.tokenizer, _messages(pictured))
    places = np.flatnonzero(example.ids == opened.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    assert places.tolist() == list(range(places[0], places[0] + 3)) and not example.mask[places].any()


def test_it_learns_is_saved_and_answers_alike_in_a_batch_padded_on_the_left(opened: Opened, tmp_path: Path) -> None:
    """Without a padding token of its own, with a chat template that takes no picture."""
    llm, tokenizer = load_llm_again(opened)
    assert tokenizer.pad_token is None
    token_id, tower = placeholder(tokenizer, IMAGE_TOKEN), small.small().tower
    cap = ImageCap(np.zeros(small.WIDTH), np.full(small.WIDTH, 0.25))
    model = assemble(llm, token_id, tower, AdapterShape(24, 3, "heads"), cap, 1)
    prompter = Prompter(tokenizer)
    turns = [[{"question": "what color is the ring", "answer": word}] for word in ("red", "yes", "no") * 4]
    rows = [str(row) for row in range(12)]
    examples = dialogue_examples(prompter, turns, 3)
    material = Material(examples, rows, small.PictureVectors(), np.arange(12) % 3, packs_exactly(model))
    assert material.packed
    groups = [*groups_of(model.model.multi_modal_projector, 0.01, 0.0), *groups_of(llm, 0.003, 0.0)]
    history, _ = train(model, groups, material, Course(30, 6, 0.1, 0.98, 1.0, 99, 99, 0, 0), None, None, "family")
    assert history.losses[-1] < history.losses[0] / 2
    processor = make_processor(tokenizer, tower, 3, IMAGE_TOKEN)
    assert processor.tokenizer.pad_token not in (None, IMAGE_TOKEN)
    save(model, processor, prompter.end_id, tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.padding_side == "left"
    reopened = AutoModelForImageTextToText.from_pretrained(tmp_path)
    tied = reopened.lm_head.weight is reopened.get_input_embeddings().weight
    assert tied == bool(llm.config.tie_word_embeddings)
    questions = ["what color is the ring"] * 3 + ["is there a red ring on the left , yes"] * 3
    vectors = small.PictureVectors().read(np.arange(3))
    told = []
    for batch_size in (6, 1):
        predictor = Predictor.load(tmp_path, batch_size=batch_size)
        requests = [Request("it", question, place % 3, 5) for place, question in enumerate(questions)]
        told.append(predictor.answers(requests, predictor.embedded(vectors), None))
    assert told[0] == told[1] and told[0][:3] == ["red", "yes", "no"]


def load_llm_again(opened: Opened) -> tuple[Any, Any]:
    """A fresh copy: training changes the model in place."""
    pin = opened.folder / "pin"
    pin.mkdir(exist_ok=True)
    pin_llm(pin, str(opened.folder), None)
    return load_llm(pin)


def test_templates_that_leave_no_target_are_refused(opened: Opened) -> None:
    """An all-zero mask would train nothing, in silence."""
    _, tokenizer = load_llm_again(opened)
    silent = tokenizer.chat_template.replace("m['content']", "''").replace("m.content", "''")
    tokenizer.chat_template = silent
    with pytest.raises(InputError, match="does not end an answer"):
        Prompter(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template; pin an instruct model") as raised:
        Prompter(tokenizer)
    assert "\n" not in str(raised.value)
