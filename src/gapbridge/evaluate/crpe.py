"""CRPE: objects (exist) and relations (subject, predicate, object), by questions of four options asked in circles.

Layout: the maintainers' release OpenGVLab/CRPE: crpe_exist.jsonl and crpe_relation.jsonl, one of them or their folder:
question_id, image (coco/val2017/… or abnormal_images/…), text (options and instruction included), category,
correct_option. Protocol: OpenGVLab/all-seeing, all-seeing-v2/llava/eval/eval_crpe.py. Every question stands there four
times, its options moved on in a circle; four in a row of one category are a circle, and official accuracy counts
circles with all four right. `score` is the accuracy over single questions, `circular` the official one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.corpus.rows import Row
from gapbridge.evaluate.layouts import json_rows, letter, listed_in, one_of, released
from gapbridge.evaluate.protocol import Benchmark, Graded, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, all_right, chosen_letter

_CATEGORIES = ("exist", "subject", "predicate", "object")
_RELATIONS = _CATEGORIES[1:]
_FILES = ("crpe_exist.jsonl", "crpe_relation.jsonl")
_CIRCLE = _OPTIONS = 4


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; ids begin with `exist` or `relation`, since both files number theirs alike."""
    del kind
    files = released(origin, _FILES)
    met: Counter[str] = Counter()

    def make(row: Row) -> Draft:
        fields = row.fields
        category = one_of(fields, "category", _CATEGORIES)
        met[category] += 1  # also of a row that turns out to be bad: circles are counted off in the order of the file
        asked, picture = words(fields, "text"), files[0].picture(words(fields, "image"))
        part = "relation" if category in _RELATIONS else category
        return question(
            origin,
            row.place,
            f"{part}/{identified(fields, 'question_id')}",
            benchmark="crpe",
            text=asked,
            answer=letter(fields, "correct_option", _OPTIONS),
            picture=picture,
            subset=category,
            detail={"choices": listed_in(asked, _OPTIONS), "circle": (met[category] - 1) // _CIRCLE},
        )

    return questions(origin, (row for file in files for row in json_rows(file)), make)


def _circular(graded: Sequence[Graded]) -> dict[str, Any]:
    """`circular` over all circles, and over those of relations where existence is asked as well."""
    relations = [one for one in graded if one.item.subset in _RELATIONS]
    figures = {"circular": all_right(graded, _circle, _CIRCLE)}
    if 0 < len(relations) < len(graded):
        figures["circular_relation"] = all_right(relations, _circle, _CIRCLE)
    return figures


def _circle(item: Item) -> tuple[str | None, int, str]:
    """Four of these are a circle; what a damaged line shifted is about several pictures, and none."""
    return item.subset, item.detail["circle"], item.group_id


BENCHMARK = Benchmark(
    name="crpe",
    title="CRPE",
    family="hallucination",
    layout="OpenGVLab/CRPE, crpe_exist.jsonl and crpe_relation.jsonl with their pictures",
    source="OpenGVLab/all-seeing all-seeing-v2/llava/eval/eval_crpe.py",
    protocols=("crpe/1",),
    read=read,
    rules=lambda items: RightOrWrong("crpe/1", chosen_letter, _circular),
)
