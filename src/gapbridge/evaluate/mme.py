"""MME: 14 subtasks, two questions a picture, of which one is answered yes and one no.

Layout: the parquet copy lmms-lab/MME, columns question_id, image, question, answer, category. Protocol: the official
eval tool (BradyFU/Awesome-Multimodal-Large-Language-Models, tools/eval_tool.zip, calculation.py). The question is asked
as it stands; yes or no counts where it is among the first four characters. A subtask scores 100 · (accuracy + accuracy
plus), the latter the share of pictures with both questions right; perception sums ten subtasks, cognition four.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate.answers import opening_yes_or_no
from gapbridge.evaluate.layouts import embedded, one_of, yes_no_label
from gapbridge.evaluate.protocol import Benchmark, Graded, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, accuracy, all_right, split

AREAS = {
    "perception": (
        *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
_SUBTASKS = frozenset(subtask for area in AREAS.values() for subtask in area)
_QUESTIONS_A_PICTURE = 2


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; the two of a picture share their question_id, which is numbered to tell them apart."""
    del kind
    uses: Counter[str] = Counter()

    def make(row: parquet.TableRow) -> Draft:
        pair = identified(row.fields, "question_id")
        uses[pair] += 1
        return question(
            origin,
            row.place,
            f"{pair}#{uses[pair]}",
            benchmark="mme",
            text=words(row.fields, "question"),
            answer=yes_no_label(row.fields, "answer"),
            picture=embedded(row, "image"),
            group=pair,
            subset=one_of(row.fields, "category", _SUBTASKS),
            detail={"pair": pair},
        )

    return questions(origin, parquet.rows(origin, ["image"], "test-"), make)


def _sums(graded: Sequence[Graded]) -> dict[str, Any]:
    """`accuracy_plus`, and the official sums of the areas whose subtasks are all there."""
    parts = split(graded, lambda item: item.subset)
    scores = {subtask: score for subtask, part in parts.items() if (score := _score(part)) is not None}
    sums = {
        area: sum(scores[subtask] for subtask in subtasks)
        for area, subtasks in AREAS.items()
        if all(subtask in scores for subtask in subtasks)
    }
    return {"accuracy_plus": _accuracy_plus(graded), **sums}


def _score(graded: Sequence[Graded]) -> float | None:
    """The official score of a subtask, 0 to 200; None where no picture has both its questions."""
    plus = _accuracy_plus(graded)
    return None if plus is None else 100 * (accuracy(graded) + plus)


def _accuracy_plus(graded: Sequence[Graded]) -> float | None:
    return all_right(graded, lambda item: (item.subset, item.detail["pair"]), _QUESTIONS_A_PICTURE)


def _parse(raw: str, item: Item) -> str | None:
    del item
    return opening_yes_or_no(raw)


BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    family="general",
    layout="lmms-lab/MME, test split (parquet)",
    source="BradyFU/Awesome-Multimodal-Large-Language-Models tools/eval_tool.zip",
    protocols=("mme/1",),
    read=read,
    rules=lambda items: RightOrWrong("mme/1", _parse, _sums),
)
