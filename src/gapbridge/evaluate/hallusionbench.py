"""HallusionBench: charts, maps, illusions and the like, some of them edited, each with several yes/no questions.

Layout: the parquet copy lmms-lab/HallusionBench, split image (951 questions); the 178 without a picture cannot be
asked of a model that always sees one, and are left out. Columns: category, subcategory, visual_input, set_id,
figure_id, question_id, question, gt_answer (1 is yes), image. Protocol: tianyi-lab/HallusionBench, utils.py, which has
GPT-4 judge the answers; here the first yes or no counts, and the prompt asks for one. aAcc is the accuracy over
questions, qAcc the share of questions that are right on every figure they are asked about, fAcc the share of figures
with every question right.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate.answers import yes_or_no
from gapbridge.evaluate.layouts import YES_OR_NO, embedded, one_of
from gapbridge.evaluate.protocol import Benchmark, Graded, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, accuracy, all_right

_CATEGORIES = ("VD", "VS")
_ANSWERS = {"0": "no", "1": "yes"}


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions about a picture; `detail` says which belong together."""
    del kind

    def make(row: parquet.TableRow) -> Draft | None:
        category = one_of(row.fields, "category", _CATEGORIES)
        parts = [identified(row.fields, key) for key in ("subcategory", "set_id", "figure_id", "question_id")]
        if identified(row.fields, "visual_input") == "0":
            return None
        kin, (figure, number) = "_".join([category, *parts[:2]]), parts[2:]
        answer = one_of({"gt_answer": identified(row.fields, "gt_answer")}, "gt_answer", _ANSWERS)
        return question(
            origin,
            row.place,
            f"{kin}_{figure}_{number}",
            benchmark="hallusionbench",
            text=f"{words(row.fields, 'question')} {YES_OR_NO}",
            answer=_ANSWERS[answer],
            picture=embedded(row, "image"),
            group=kin,
            subset=category,
            detail={"question": f"{kin}_{number}", "figure": f"{kin}_{figure}"},
        )

    return questions(origin, parquet.rows(origin, ["image"], "image-"), make)


def _official(graded: Sequence[Graded]) -> dict[str, Any]:
    return {
        "aAcc": accuracy(graded),
        "qAcc": all_right(graded, lambda item: item.detail["question"]),
        "fAcc": all_right(graded, lambda item: item.detail["figure"]),
    }


def _parse(raw: str, item: Item) -> str | None:
    del item
    return yes_or_no(raw)


BENCHMARK = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    family="hallucination",
    layout="lmms-lab/HallusionBench, image split (parquet)",
    source="tianyi-lab/HallusionBench utils.py",
    protocols=("hallusionbench-rule/1",),
    read=read,
    rules=lambda items: RightOrWrong("hallusionbench-rule/1", _parse, _official),
)
