"""Exact ids and masks, quick and slow alike, on our template and on the shapes of three well-known ones."""

import time
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gapbridge.errors import InputError
from gapbridge.train.prompts import Dialogue, Prompter, record_names
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer

WORDS = ["a red ring on the left", "is there a red ring", "what color is the ring", "yes", "no", "red", "user", "model"]

LLAMA_LIKE = (
    "{{ '<|begin|>' }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|head|>system<|/head|>\n\nToday: ' + date_string + '<|eot|>' }}"
    "{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
CHATML_LIKE = (
    "{% for m in messages %}{{ '<|im_s|>' + m.role + '\n' + m.content + '<|im_e|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_s|>assistant\n' }}{% endif %}"
)
GEMMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim + '</turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_s|>' + m.role + '\n' }}"
    "{% if loop.last and m.role == 'assistant' %}{{ 'yes no ' }}{% endif %}{{ m.content + '<|im_e|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_s|>assistant\n' }}{% endif %}"
)
HYBRID = (
    "{% for m in messages %}{{ '<|im_s|>' + m.role + '\n' }}"
    "{% if loop.last and m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_e|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_s|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
MISTRAL_LIKE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
PHI_LIKE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
PLAIN = (
    "{% for m in messages %}{{ ('USER: ' if m.role == 'user' else 'ASSISTANT:\n') + m.content }}"
    "{{ '</s>' if m.role == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:\n{% endif %}"
)
MODERN_SPLIT = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def made_by_hand(
    template: str, markers: list[str], bos: str | None = None, eos: str | None = None, plain: list[str] | None = None
) -> Any:
    """A byte-level tokenizer with another family's manners: no prefix space, its own markers and no pad token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(MODERN_SPLIT, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator([*WORDS, "\n\n \n"] * 9, trainer)
    backend.add_special_tokens([*markers, IMAGE_TOKEN])
    backend.add_tokens(plain or [])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = {
    "ours": lambda: train_tokenizer(WORDS * 9, 380),
    "llama": lambda: made_by_hand(LLAMA_LIKE, ["<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"]),
    "chatml": lambda: made_by_hand(CHATML_LIKE, ["<|im_s|>", "<|im_e|>"], eos="<|im_e|>"),
    "gemma": lambda: made_by_hand(GEMMA_LIKE, ["<b>", "<turn>", "</turn>"], bos="<b>"),
    "thinking": lambda: made_by_hand(THINKING, ["<|im_s|>", "<|im_e|>"]),
    "hybrid": lambda: made_by_hand(HYBRID, ["<|im_s|>", "<|im_e|>"], plain=["<think>", "</think>"]),
    "mistral": lambda: made_by_hand(MISTRAL_LIKE, ["<s>", "[INST]", "[/INST]", "</s>"], bos="<s>", eos="</s>"),
    "phi": lambda: made_by_hand(PHI_LIKE, ["<|user|>", "<|assistant|>", "<|end|>", "<|eos|>"], eos="<|eos|>"),
    "plain": lambda: made_by_hand(PLAIN, ["</s>"], eos="</s>"),
}
DIALOGUES = [
    Dialogue((("is there a red ring", "yes"),), context="a red ring on the left"),
    Dialogue((("what color is the ring", "  red "), ("is there a ring", "yes")), visual_tokens=3),
    Dialogue((("user", "model"), ("2 + 2 = ?", "4\n\nindeed, 4"), ("naïve 七", "<i> & {x}"))),
    Dialogue((("is there a red ring", "no"),), context="a red ring on the left\nred, red"),
]


@pytest.fixture(params=sorted(TOKENIZERS))
def prompter(request: pytest.FixtureRequest) -> Prompter:
    return Prompter(TOKENIZERS[request.param]())


def test_quick_and_slow_agree(prompter: Prompter) -> None:
    many = [Dialogue(d.turns, d.context, d.visual_tokens) for d in DIALOGUES * 30]
    for dialogue, example in zip(many, prompter.examples(many), strict=True):
        slow = prompter.by_prefixes(dialogue)
        assert example.ids.tolist() == slow.ids.tolist()
        assert example.mask.tolist() == slow.mask.tolist()
        assert example.mask.any()


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"thinking"}))
def test_targets_are_the_answers_and_the_token_that_ends_them(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    prompter = Prompter(tokenizer)
    for dialogue, example in zip(DIALOGUES, prompter.examples(DIALOGUES), strict=True):
        spans = np.split(example.ids[example.mask], np.flatnonzero(example.ids[example.mask] == prompter.end_id) + 1)
        assert [span[-1] for span in spans[:-1]] == [prompter.end_id] * len(dialogue.turns)
        assert [tokenizer.decode(span[:-1]).strip() for span in spans[:-1]] == [a.strip() for _, a in dialogue.turns]
        assert spans[-1].size == 0


def test_ids_of_our_template_are_exactly_these() -> None:
    tokenizer = TOKENIZERS["ours"]()
    example = Prompter(tokenizer).examples([Dialogue((("is there a ring", "yes"), ("what color", "red")), None, 2)])[0]
    shown = tokenizer.convert_ids_to_tokens(example.ids.tolist())
    assert (
        "".join(shown)
        == "<bos><user><image><image>\nĠisĠthereĠaĠring<assistant>Ġyes<eos><user>ĠwhatĠcolor<assistant>Ġred<eos>"
    )
    assert [token for token, target in zip(shown, example.mask, strict=True) if target] == [
        "Ġyes",
        "<eos>",
        "Ġred",
        "<eos>",
    ]


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"hybrid"}))
def test_a_question_is_asked_with_the_ids_that_training_saw(name: str) -> None:
    """A hybrid model's first turns are another matter, see the last test."""
    prompter = Prompter(TOKENIZERS[name]())
    dialogue = DIALOGUES[1]
    example = prompter.examples([dialogue])[0]
    first, second = (
        prompter.ask(d, 3, history=h)
        for d, h in ((dialogue.turns[0][0], ()), (dialogue.turns[1][0], dialogue.turns[:1]))
    )
    assert example.ids[: len(first)].tolist() == first
    assert example.mask[len(first)] and not example.mask[: len(first)].any()
    assert example.ids[: len(second)].tolist() == second


def test_a_context_stands_where_the_picture_would() -> None:
    prompter = Prompter(TOKENIZERS["ours"]())
    seen, read = (
        prompter.ask("is there a ring", visual_tokens=6),
        prompter.ask("is there a ring", context="a red ring on the left"),
    )
    assert len(seen) == len(read)
    assert [one == other for one, other in zip(seen, read, strict=True)] == [True] * 2 + [False] * 6 + [True] * 6


def test_the_day_does_not_change_the_ids() -> None:
    assert "26 Jul 2024" in (t := TOKENIZERS["llama"]()).decode(Prompter(t).ask("is there a ring"))


def test_nothing_to_learn_is_an_error() -> None:
    prompter = Prompter(TOKENIZERS["ours"]())
    with pytest.raises(InputError, match="dialogue 1: has no answer"):
        prompter.examples([DIALOGUES[0], Dialogue(())])
    with pytest.raises(InputError, match="dialogue 0: has no answer"):
        prompter.examples([Dialogue((("is there", " "),))])


def test_markers_inside_a_text_are_an_error() -> None:
    prompter = Prompter(TOKENIZERS["ours"]())
    with pytest.raises(InputError, match="dialogue 0: its text holds the marker '<eos>'"):
        prompter.examples([Dialogue((("is there", "yes <eos> no"),))])
    names = record_names("llm", ["r7"])
    with pytest.raises(InputError, match="llm: record 'r7': its text holds the marker '<eos>'; remove it"):
        prompter.examples([Dialogue((("is there", "yes <eos> no"),))], names)
    with pytest.raises(InputError, match="the question: its text holds the marker '<image>'"):
        prompter.ask("is there a <image>")


def test_a_tokenizer_without_a_usable_template_is_an_error() -> None:
    tokenizer = TOKENIZERS["ours"]()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(InputError, match="does not end an answer"):
        Prompter(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        Prompter(tokenizer)


def test_a_template_that_rewrites_the_past_is_an_error() -> None:
    tokenizer = TOKENIZERS["chatml"]()
    tokenizer.chat_template = "{{ messages | length }}" + CHATML_LIKE
    with pytest.raises(InputError, match="differently from its beginning"):
        Prompter(tokenizer).examples([DIALOGUES[1]])


def test_an_unknown_image_token_and_two_contexts_are_errors() -> None:
    with pytest.raises(InputError, match="does not know <other>"):
        Prompter(TOKENIZERS["ours"](), "<other>").ask("yes", visual_tokens=2)
    with pytest.raises(InputError, match="give one"):
        Prompter(TOKENIZERS["ours"]()).ask("yes", visual_tokens=2, context="red")


@pytest.mark.slow
def test_fifty_thousand_dialogues_take_seconds() -> None:
    prompter = Prompter(TOKENIZERS["ours"]())
    many = [
        Dialogue(tuple((f"is there a {i % 997} {j}", "yes") for j in range(5)), f"red {i % 4001}")
        for i in range(50_000)
    ]
    start = time.process_time()
    assert len(prompter.examples(many)) == 50_000
    assert time.process_time() - start < 20


def test_a_hybrid_model_answers_without_a_thought() -> None:
    """As Qwen 3: the empty thought before the last answer is given to the model, never asked of it."""
    tokenizer = TOKENIZERS["hybrid"]()
    prompter = Prompter(tokenizer)
    turns = (("what color is the ring", "red"), ("is there a ring", "yes"))
    (example,) = prompter.examples([Dialogue(turns)])
    thought = tokenizer.convert_tokens_to_ids("</think>")
    assert (example.ids == thought).sum() == 1 and not example.mask[example.ids == thought].any()
    asked = prompter.ask("is there a ring", history=turns[:1])
    assert asked == example.ids[: len(asked)].tolist() and asked.count(thought) == 1


def test_a_corpus_is_tokenized_in_parts_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer(WORDS, 300)
    dialogues = [Dialogue((("what color is the ring", f"red {number}"),)) for number in range(30)]
    expected = Prompter(tokenizer).examples(dialogues)
    told: list[int] = []

    class Counted:
        def __call__(self, texts: Any, **settings: Any) -> Any:
            told.append(1 if isinstance(texts, str) else len(texts))
            return tokenizer(texts, **settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    monkeypatch.setattr("gapbridge.train.prompts._PIECES_AT_ONCE", 7)
    prompter = Prompter(Counted())
    found = prompter.examples(dialogues)
    assert max(told) == 7 and not prompter._pieces
    for one, other in zip(found, expected, strict=True):
        assert one.ids.dtype == np.int64
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.mask, other.mask)
