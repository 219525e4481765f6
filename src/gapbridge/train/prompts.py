"""Token ids of dialogues and which of them the model must learn to say, for any tokenizer with a chat template.

The definition is `Prompter.by_prefixes`: the ids of an answer are what the whole dialogue's rendering holds beyond
the rendering of everything before it with a generation prompt, up to and including the token that ends the turn.
(`{% generation %}` blocks are no help: stock Llama, Qwen and Gemma templates lack them, and the masks come out all
zero in silence.) Rendering every prefix of every dialogue is slow, so `Prompter.examples` renders the template
once per number of turns, keeps the literal text between the contents, and tokenizes each distinct piece once.
Wherever that is not provably the same (pieces must begin with special tokens, and a sample is compared with the
definition), the slow way is taken.

Shapes: `t` tokens of one dialogue.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gapbridge.errors import InputError
from gapbridge.model.processor import PICTURE_SEPARATOR, TEMPLATE_DATE
from gapbridge.train.tokens import IMAGE_TOKEN

_COMPARED = 16
_PIECES_AT_ONCE = 4096
_MARK = "gapbridge{}mark"


@dataclass(frozen=True)
class Dialogue:
    """Questions and answers about a picture, or about a `context` text in its place, or about nothing."""

    turns: tuple[tuple[str, str], ...]
    context: str | None = None
    visual_tokens: int = 0


@dataclass(frozen=True)
class Example:
    """`ids` (t,) int64 and `mask` (t,) bool: true where a token is a target of the loss."""

    ids: np.ndarray
    mask: np.ndarray


def record_names(set_name: str, ids: Iterable[str]) -> list[str]:
    """What errors call the dialogues of those records of a set."""
    return [f"{set_name}: record {record_id!r}" for record_id in ids]


class Prompter:
    """Renders dialogues and questions for one tokenizer.

    Contents are stripped of white space at their ends. Raises InputError when the tokenizer has no chat template
    that ends an answer with a special token.
    """

    def __init__(self, tokenizer: Any, image_token: str = IMAGE_TOKEN) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "the language model's tokenizer has no chat template; pin an instruct model in llm.pretrained"
            )
        self._tokenizer = tokenizer
        self._image_token = image_token
        self._special = _special_tokens(tokenizer)
        self._forbidden = re.compile("|".join(re.escape(token) for token in [image_token, *self._special]))
        self._pieces: dict[tuple[str, str], np.ndarray] = {}
        self._skeletons: dict[int, list[str]] = {}
        self.end_id = self._find_end()
        """The token by which the model ends an answer; generation stops there."""

    def examples(self, dialogues: Sequence[Dialogue], names: Sequence[str] | None = None) -> list[Example]:
        """Ids and masks of every dialogue, in order; `names` says what errors call each one, else its place does.

        Raises InputError, naming the dialogue, when one has no turn or an empty content, holds a marker of the
        template in its text, or when the template cannot be cut at the answers.
        """
        names = names or [f"dialogue {place}" for place in range(len(dialogues))]
        contents = [self._contents(dialogue, name) for dialogue, name in zip(dialogues, names, strict=True)]
        by_turns: dict[int, list[int]] = {}
        for place, texts in enumerate(contents):
            by_turns.setdefault(len(texts) // 2, []).append(place)
        found: dict[int, Example] = {}
        for places in by_turns.values():
            quick = self._quick_is_exact([contents[place] for place in places])
            for place in places:
                found[place] = self._quick(contents[place]) if quick else self._slow(contents[place])
            self._pieces.clear()  # a corpus's texts are not asked for again
        return [found[place] for place in range(len(dialogues))]

    def by_prefixes(self, dialogue: Dialogue) -> Example:
        """The definition: one rendering a turn, compared by token ids."""
        return self._slow(self._contents(dialogue, "the dialogue"))

    def ask(
        self,
        question: str,
        visual_tokens: int = 0,
        context: str | None = None,
        history: Sequence[tuple[str, str]] = (),
        name: str = "the question",
    ) -> list[int]:
        """Ids up to the place where the model answers `question`, after the turns of `history`.

        Raises InputError as `examples` does, calling the question by `name`.
        """
        dialogue = Dialogue((*history, (question, "-")), context, visual_tokens)
        return self._encode(self._render(self._contents(dialogue, name)[:-1], prompt=True))

    def _contents(self, dialogue: Dialogue, where: str) -> list[str]:
        """Question, answer, question, … with the picture or the context before the first question."""
        texts = [text.strip() for turn in dialogue.turns for text in turn]
        if not texts or not all(texts):
            raise InputError(f"{where}: has no answer to learn from; every turn needs a question and an answer")
        if dialogue.context is not None and dialogue.visual_tokens:
            raise InputError(f"{where}: has both a picture and a context in its place; give one")
        if dialogue.visual_tokens and self._image_token not in self._special:
            raise InputError(f"{where}: the tokenizer does not know {self._image_token}; add it as a special token")
        checked = [dialogue.context or "", *texts]
        if found := self._forbidden.search("\0".join(checked)):
            raise InputError(f"{where}: its text holds the marker {found.group()!r}; remove it")
        before = self._image_token * dialogue.visual_tokens or (dialogue.context or "").strip()
        if before:
            texts[0] = before + PICTURE_SEPARATOR + texts[0]
        return texts

    def _render(self, contents: Sequence[str], prompt: bool = False, open_ended: bool = False) -> str:
        """`open_ended` leaves it to the model whether to think first; else templates that can, say that it does not."""
        messages = [
            {"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(contents)
        ]
        return self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=prompt,
            date_string=TEMPLATE_DATE,
            **({} if open_ended else {"enable_thinking": False}),
        )

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    def _find_end(self) -> int:
        """The special token right behind an answer."""
        answer = _MARK.format(1)
        rendered = self._render([_MARK.format(0), answer])
        behind = rendered[rendered.rindex(answer) + len(answer) :] if answer in rendered else ""
        ids = self._encode(behind.strip())
        if not ids or self._tokenizer.convert_ids_to_tokens(ids[0]) not in self._special:
            raise InputError("the chat template does not end an answer with a special token; pin another model")
        return ids[0]

    def _slow(self, contents: Sequence[str]) -> Example:
        ids = np.array(self._encode(self._render(contents)), dtype=np.int64)
        mask = np.zeros(len(ids), dtype=bool)
        for answer in range(1, len(contents), 2):
            start = self._start(ids, contents[:answer])
            ends = np.flatnonzero(ids[start:] == self.end_id)
            if not start or not len(ends):
                raise InputError("the chat template renders a dialogue differently from its beginning; pin another")
            mask[start : start + ends[0] + 1] = True
        return Example(ids, mask)

    def _start(self, ids: np.ndarray, before: Sequence[str]) -> int:
        """Where the answer behind `before` begins in the ids of the whole dialogue; 0 where they differ before that.

        A hybrid model's template writes an empty thought before the last answer alone.
        """
        for open_ended in (False, True):
            start = self._encode(self._render(before, prompt=True, open_ended=open_ended))
            if np.array_equal(ids[: len(start)], start):
                return len(start)
        return 0

    def _quick(self, contents: Sequence[str]) -> Example:
        """Pieces, each the literal text before a content and the content, tokenized once and remembered."""
        literals = self._skeletons[len(contents)]
        pieces, spans, length = [], [], 0
        for place, (literal, content) in enumerate(zip(literals, [*contents, ""], strict=True)):
            piece = self._piece(literal, content)
            if place % 2:
                spans.append((length + len(self._piece(literal, "")), length + len(piece)))
            pieces.append(piece)
            length += len(piece)
        mask = np.zeros(length, dtype=bool)
        for start, end in spans:
            mask[start : end + 1] = True  # the next piece begins with the token that ends the turn
        return Example(np.concatenate(pieces, dtype=np.int64), mask)

    def _piece(self, literal: str, content: str) -> np.ndarray:
        key = (literal, content)
        if key not in self._pieces:
            self._pieces[key] = np.array(self._encode(literal + content), dtype=np.int32)
        return self._pieces[key]

    def _quick_is_exact(self, dialogues: Sequence[Sequence[str]]) -> bool:
        """Whether the pieces of these dialogues, all of one number of turns, add up to their true rendering."""
        count = len(dialogues[0])
        literals = self._skeleton(count)
        if literals is None:
            return False
        self._skeletons[count] = literals
        distinct = {(literals[place], contents[place]) for contents in dialogues for place in range(count)}
        self._learn([piece for piece in sorted(distinct) if piece not in self._pieces])
        if not all(self._continues(literal, content) for literal, content in distinct if literal != literals[0]):
            return False
        compared = dialogues[:: max(1, len(dialogues) // _COMPARED)]
        return all(_equal(self._quick(contents), self._slow(contents)) for contents in compared)

    def _learn(self, pieces: list[tuple[str, str]]) -> None:
        """Tokenize many pieces, some thousands in one call: what a tokenizer tells of a token takes 100 bytes."""
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            part = pieces[start : start + _PIECES_AT_ONCE]
            told = self._tokenizer(
                [literal + content for literal, content in part], add_special_tokens=False, return_attention_mask=False
            )
            found = (np.array(ids, dtype=np.int32) for ids in told["input_ids"])
            self._pieces.update(zip(part, found, strict=True))

    def _continues(self, literal: str, content: str) -> bool:
        """Whether the ids of the literal begin those of the piece: the content starts a token of its own."""
        before = self._piece(literal, "")
        return np.array_equal(self._piece(literal, content)[: len(before)], before)

    def _skeleton(self, count: int) -> list[str] | None:
        """The template's text before each of `count` contents and behind the last, if special tokens begin each."""
        marks = [_MARK.format(place) for place in range(count)]
        literals = []
        rest = self._render(marks)
        for mark in marks:
            if rest.count(mark) != 1:
                return None
            literal, rest = rest.split(mark)
            literals.append(literal)
        literals.append(rest)
        begins = all(literal.startswith(self._special) for literal in literals[1:])
        return literals if begins else None


def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Markers that the tokenizer cuts out before anything else, longest first."""
    added = tokenizer.added_tokens_decoder.values()
    return tuple(sorted((token.content for token in added if token.special), key=lambda text: (-len(text), text)))


def _equal(one: Example, other: Example) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.mask, other.mask)
