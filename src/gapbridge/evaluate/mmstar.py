"""MMStar: 1,500 questions of four options that cannot be answered without the picture, 250 for each of six abilities.

Layout: the maintainers' parquet, Lin-Chen/MMStar, split val: index, question (with its options), image, answer,
category. Protocol: MMStar-Benchmark/MMStar, eval/vlmeval/evaluate/mmstar.py, and the instruction of its LLaVA
(eval/vlmeval/vlm/llava_next.py). The score is the accuracy over all questions.
"""

from collections.abc import Iterator

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate.layouts import OPTION_LETTER, embedded, letter, one_of
from gapbridge.evaluate.protocol import Benchmark
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

_ABILITIES = (
    *("coarse perception", "fine-grained perception", "instance reasoning"),
    *("logical reasoning", "science & technology", "math"),
)
_OPTIONS = 4


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; options stand in the question's own text, so only their letters are known."""
    del kind

    def make(row: parquet.TableRow) -> Draft:
        return question(
            origin,
            row.place,
            identified(row.fields, "index"),
            benchmark="mmstar",
            text=f"{words(row.fields, 'question')}\n{OPTION_LETTER}",
            answer=letter(row.fields, "answer", _OPTIONS),
            picture=embedded(row, "image"),
            subset=one_of(row.fields, "category", _ABILITIES),
            detail={"choices": [""] * _OPTIONS},
        )

    return questions(origin, parquet.rows(origin, ["image"]), make)


BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar",
    family="general",
    layout="Lin-Chen/MMStar, val split (parquet)",
    source="MMStar-Benchmark/MMStar eval/vlmeval/evaluate/mmstar.py",
    protocols=("mmstar/1",),
    read=read,
    rules=lambda items: RightOrWrong("mmstar/1", chosen_letter),
)
