"""POPE as published: is an object in the picture? 3,000 questions each about random, popular and adversarial objects.

Layout: the maintainers' JSON Lines (RUCAIBox/POPE, output/coco/coco_pope_{random,popular,adversarial}.json: the fields
question_id, image, text, label) with COCO's val2014 pictures in `images`, one file or their folder; or the parquet copy
lmms-lab/POPE: question_id, image, image_source, question, answer, category. Protocol: evaluate.py there. The question
is asked as it stands; a first sentence with `no` or `not` means no. yes is the positive answer.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, optional_words, words
from gapbridge.corpus.questions import question, questions
from gapbridge.corpus.rows import Row
from gapbridge.errors import InputError
from gapbridge.evaluate.answers import no_before_yes
from gapbridge.evaluate.layouts import embedded, json_rows, one_of, yes_no_label
from gapbridge.evaluate.protocol import Benchmark, Graded, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong

_SUBSETS = ("random", "popular", "adversarial")
_FILE = re.compile(rf".*_pope_({'|'.join(_SUBSETS)})\.jsonl?")


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; ids begin with the subset, since all three number theirs alike."""
    del kind
    place = origin.place()
    if place.is_dir():
        files = sorted(path for path in place.iterdir() if _FILE.fullmatch(path.name))
    else:
        files = [] if place.suffix in (".parquet", ".pq") else [place]
    if not files:
        return questions(origin, parquet.rows(origin, ["image"]), lambda row: _from_table(origin, row))
    return (row for file in files for row in _from_lines(replace(origin, path=origin.relative(file))))


def _from_lines(origin: Origin) -> Iterator[Draft | BadRow]:
    named = _FILE.fullmatch(origin.file().name)
    if named is None:
        raise InputError(
            f"sources.{origin.set_name}.path: the name of {origin.path} does not say which of POPE's subsets it holds;"
            " call it coco_pope_random.json, coco_pope_popular.json or coco_pope_adversarial.json"
        )

    def make(row: Row) -> Draft:
        fields = row.fields
        picture = origin.picture(words(fields, "image"))
        return question(
            origin,
            row.place,
            f"{named.group(1)}/{identified(fields, 'question_id')}",
            benchmark="pope_official",
            text=words(fields, "text"),
            answer=yes_no_label(fields, "label"),
            picture=picture,
            subset=named.group(1),
        )

    return questions(origin, json_rows(origin), make)


def _from_table(origin: Origin, row: parquet.TableRow) -> Draft:
    subset = one_of(row.fields, "category", _SUBSETS)
    return question(
        origin,
        row.place,
        f"{subset}/{identified(row.fields, 'question_id')}",
        benchmark="pope_official",
        text=words(row.fields, "question"),
        answer=yes_no_label(row.fields, "answer"),
        picture=embedded(row, "image"),
        group=optional_words(row.fields, "image_source"),
        subset=subset,
    )


def _figures(graded: Sequence[Graded]) -> dict[str, Any]:
    """Precision, recall and F1 of yes, and how often it is said; null where nothing is there to divide by."""
    said = [one for one in graded if one.parsed == "yes"]
    true = sum(one.item.answer == "yes" for one in said)
    there = sum(one.item.answer == "yes" for one in graded)
    return {
        "precision": true / len(said) if said else None,
        "recall": true / there if there else None,
        "f1": 2 * true / (len(said) + there) if said or there else None,
        "yes_rate": len(said) / len(graded),
    }


def _parse(raw: str, item: Item) -> str | None:
    del item
    return no_before_yes(raw)


BENCHMARK = Benchmark(
    name="pope_official",
    title="POPE",
    family="hallucination",
    layout="RUCAIBox/POPE output/coco (JSON Lines) with COCO val2014, or lmms-lab/POPE (parquet)",
    source="RUCAIBox/POPE evaluate.py",
    protocols=("pope/1",),
    read=read,
    rules=lambda items: RightOrWrong("pope/1", _parse, _figures),
)
