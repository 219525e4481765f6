"""How long the samples of a stage are: by the model's own tokenizer and template where it is there, else by letters.

Shapes: `n` samples, `k` visual tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.errors import InputError, one_line
from gapbridge.model.assemble import placeholder
from gapbridge.train.examples import caption_examples, dialogue_examples
from gapbridge.train.prompts import Example, Prompter
from gapbridge.train.tokens import IMAGE_TOKEN

SENSELESS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What transformers and torch raise over settings that parse and make no sense."""
_LETTERS_A_TOKEN = 4
_TEMPLATE_TOKENS = 20
HOW = {
    True: "tokens by the model's own tokenizer and template, of the first rows",
    False: f"tokens by letters, {_LETTERS_A_TOKEN} a token, and {_TEMPLATE_TOKENS} for the template, of the first rows",
}


@dataclass(frozen=True)
class Lengths:
    """Tokens (n,) of samples, and how many of them (n,) are targets of the loss; `exact` by the real tokenizer."""

    tokens: np.ndarray
    targets: np.ndarray
    exact: bool


def open_prompter(folder: Path | None) -> tuple[Prompter | None, str | None]:
    """The prompter of a language model's folder; else why there is none, where it is a fault."""
    if folder is None or not (folder / "tokenizer_config.json").is_file():
        return None, None
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        placeholder(tokenizer, IMAGE_TOKEN)
        return Prompter(tokenizer), None
    except (*SENSELESS, InputError, OSError, StrictDataclassError) as error:
        return None, f"{folder.name}: {one_line(error)}"


def caption_lengths(
    records: Sequence[Mapping[str, Any]], column: str, instruction: str, visual_tokens: int, prompter: Prompter | None
) -> Lengths | None:
    """Of stage 1: texts behind an instruction and k visual tokens. None without texts."""
    texts = [record[column] for record in records if record.get(column)]
    if not texts:
        return None
    if prompter is not None:
        return _counted(caption_examples(prompter, texts, instruction, visual_tokens))
    return _estimated([(len(instruction), len(text)) for text in texts], visual_tokens)


def dialogue_lengths(
    records: Sequence[Mapping[str, Any]], visual_tokens: int, prompter: Prompter | None
) -> Lengths | None:
    """Of stage 2: turns behind k visual tokens. None without dialogues."""
    turns = [record["turns"] for record in records if record.get("turns")]
    if not turns:
        return None
    if prompter is not None:
        return _counted(dialogue_examples(prompter, turns, visual_tokens))
    letters = [[sum(len(turn[side]) for turn in one) for side in ("question", "answer")] for one in turns]
    return _estimated([(asked, said) for asked, said in letters], visual_tokens)


def _counted(examples: Sequence[Example]) -> Lengths:
    return Lengths(
        np.array([len(example.ids) for example in examples]),
        np.array([int(example.mask.sum()) for example in examples]),
        exact=True,
    )


def _estimated(letters: Sequence[tuple[int, int]], visual_tokens: int) -> Lengths:
    tokens = -(-np.array(letters) // _LETTERS_A_TOKEN)
    return Lengths(tokens.sum(axis=1) + visual_tokens + _TEMPLATE_TOKENS, tokens[:, 1] + 1, exact=False)
