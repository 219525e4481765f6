"""RealWorldQA: 765 photographs, mostly from cars, each with one question: a letter, a word or a number.

Layout: parquet, the copy lmms-lab/RealWorldQA or xAI's own xai-org/RealworldQA: image, question, answer. The question
already says how to answer. xAI published no scorer; the protocol is that of EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/realworldqa: a letter where the right answer is one, else the same words.
"""

from collections.abc import Iterator

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate import answers
from gapbridge.evaluate.layouts import embedded, listed_in
from gapbridge.evaluate.protocol import Benchmark, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

_LETTERS = ("A", "B", "C", "D")


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions, asked as they stand; rows have no id and are named by their place."""
    del kind

    def make(row: parquet.TableRow) -> Draft:
        asked, answer = words(row.fields, "question"), words(row.fields, "answer")
        choices = listed_in(asked, len(_LETTERS)) if answer in _LETTERS else None
        return question(
            origin,
            row.place,
            row.name,
            benchmark="realworldqa",
            text=asked,
            answer=answer,
            picture=embedded(row, "image"),
            detail={"choices": choices},
        )

    return questions(origin, parquet.rows(origin, ["image"], "test-"), make)


def _parse(raw: str, item: Item) -> str | None:
    """The letter, or the words that were said, numbers as digits."""
    if item.detail["choices"] is not None:
        return chosen_letter(raw, item)
    return " ".join(answers.words(raw)) or None


def _is_right(parsed: str, item: Item) -> bool:
    return parsed == (item.answer if item.detail["choices"] is not None else " ".join(answers.words(item.answer)))


BENCHMARK = Benchmark(
    name="realworldqa",
    title="RealWorldQA",
    family="general",
    layout="lmms-lab/RealWorldQA or xai-org/RealworldQA, test split (parquet)",
    source="EvolvingLMMs-Lab/lmms-eval lmms_eval/tasks/realworldqa/utils.py",
    protocols=("realworldqa/1",),
    read=read,
    rules=lambda items: RightOrWrong("realworldqa/1", _parse, is_right=_is_right),
)
