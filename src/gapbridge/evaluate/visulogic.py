"""VisuLogic: 1,000 puzzles of figures with four options each, in six categories.

Layout: the maintainers' release VisuLogic/VisuLogic: data.jsonl (id, image_path, question, label, tag) beside the
unpacked images.zip. Protocol: VisuLogic-Benchmark/VisuLogic-Eval, evaluation/eval_model.py, with the prompt of
models/prompts.py. Where its rules find no letter it asks a language model; here that question counts as unparsed.
"""

from collections.abc import Iterator

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.corpus.rows import Row
from gapbridge.evaluate.answers import boxed_letter
from gapbridge.evaluate.layouts import json_rows, letter, one_of, released
from gapbridge.evaluate.protocol import Benchmark, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

_CATEGORIES = (
    *("Quantitative Reasoning", "Spatial Reasoning", "Positional Reasoning"),
    *("Attribute Reasoning", "Stylistic Reasoning", "Other"),
)
_PROMPT = (
    "Solve the complex visual logical reasoning problem through step-by-step reasoning. Think about the reasoning"
    " process first and answer the question following this format: Answer: \\boxed{$LETTER}."
)
_OPTIONS = 4


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; options are drawn in the picture, so only their letters are known."""
    del kind
    (placed,) = released(origin, ["data.jsonl"])

    def make(row: Row) -> Draft:
        return question(
            placed,
            row.place,
            identified(row.fields, "id"),
            benchmark="visulogic",
            text=f"{words(row.fields, 'question')}\n{_PROMPT}",
            answer=letter(row.fields, "label", _OPTIONS),
            picture=placed.picture(words(row.fields, "image_path")),
            subset=one_of(row.fields, "tag", _CATEGORIES),
            detail={"choices": [""] * _OPTIONS},
        )

    return questions(placed, json_rows(placed), make)


def _parse(raw: str, item: Item) -> str | None:
    return boxed_letter(raw, _OPTIONS) or chosen_letter(raw, item)


BENCHMARK = Benchmark(
    name="visulogic",
    title="VisuLogic",
    family="reasoning",
    layout="VisuLogic/VisuLogic, data.jsonl and images",
    source="VisuLogic-Benchmark/VisuLogic-Eval evaluation/eval_model.py",
    protocols=("visulogic-rule/1",),
    read=read,
    rules=lambda items: RightOrWrong("visulogic-rule/1", _parse),
    max_new_tokens=1024,
)
