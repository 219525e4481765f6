"""ScienceQA-IMG: the questions of ScienceQA's test split that have a picture, two to five options each.

Layout: the parquet copy lmms-lab/ScienceQA, configuration ScienceQA-IMG: image, question, choices, answer (a place in
choices), hint, subject. Rows without a picture, which ScienceQA-FULL has, are left out. Protocol: LLaVA's single prompt
(haotian-liu/LLaVA, llava/eval/model_vqa_science.py and eval_science_qa.py), worded as in EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/scienceqa; the official tools/evaluate_acc.py of lupantech/ScienceQA takes parsed places alone.
"""

from collections.abc import Iterator
from string import ascii_uppercase

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate.layouts import OPTION_LETTER, embedded, listed, one_of, texts
from gapbridge.evaluate.protocol import Benchmark
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

_FULL = "ScienceQA-FULL"
_SUBJECTS = ("natural science", "social science", "language science")


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; the hint, where there is one, comes first as the context."""
    del kind

    def make(row: parquet.TableRow) -> Draft | None:
        is_twice = _FULL in row.place and _FULL not in origin.path  # beside ScienceQA-IMG, whose questions it has too
        if "image" not in row.pictures or is_twice:
            return None
        choices = texts(row.fields.get("choices"), "choices")
        place = row.fields.get("answer")
        if not isinstance(place, int) or not 0 <= place < len(choices):
            raise BadFieldError(f'"answer" is {place!r}, none of the {len(choices)} options')
        hint = str(row.fields.get("hint") or "").strip()
        context = f"Context: {hint}\n" if hint else ""
        return question(
            origin,
            row.place,
            row.name,
            benchmark="scienceqa",
            text=f"{context}{words(row.fields, 'question')}\n{listed(choices)}\n{OPTION_LETTER}",
            answer=ascii_uppercase[place],
            picture=embedded(row, "image"),
            subset=one_of(row.fields, "subject", _SUBJECTS),
            detail={"choices": choices},
        )

    return questions(origin, parquet.rows(origin, ["image"], "test-"), make)


BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG",
    family="general",
    layout="lmms-lab/ScienceQA, ScienceQA-IMG, test split (parquet)",
    source="haotian-liu/LLaVA llava/eval/eval_science_qa.py",
    protocols=("scienceqa-img/1",),
    read=read,
    rules=lambda items: RightOrWrong("scienceqa-img/1", chosen_letter),
)
