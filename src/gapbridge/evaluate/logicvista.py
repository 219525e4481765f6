"""LogicVista: 448 questions of aptitude tests in five kinds of reasoning; some have several right letters.

Layout: the maintainers' release (Yijia-Xiao/LogicVista, data/): dataset.json, an object of `id: {imagename, question,
answer, skill}`, beside images/. Protocol: eval/extract_accuracy.py there, which has GPT-4 name the letters that were
chosen; here a rule finds them, and the prompt asks for them alone. All the right letters and no other must be named.
"""

import json
from collections.abc import Iterator
from string import ascii_uppercase

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, words
from gapbridge.corpus.questions import question, questions
from gapbridge.corpus.rows import Row
from gapbridge.errors import InputError
from gapbridge.evaluate.answers import listed_letters
from gapbridge.evaluate.layouts import OPTION_LETTER, listed_in, one_of, released
from gapbridge.evaluate.protocol import Benchmark, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

_SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
_LETTERS = ascii_uppercase[:9]
"""The picture may hold options A to I."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions; the answer is the right letters in their order, such as `AC`."""
    del kind
    (placed,) = released(origin, ["dataset.json"], "images")

    def make(row: Row) -> Draft:
        fields = row.fields
        skill = fields.get("skill")
        asked = words(fields, "question")
        return question(
            placed,
            row.place,
            row.name,
            benchmark="logicvista",
            text=f"{asked}\n{OPTION_LETTER}",
            answer=_letters(words(fields, "answer")),
            picture=placed.picture(words(fields, "imagename")),
            subset=one_of({"skill": skill[0] if isinstance(skill, list) and skill else skill}, "skill", _SKILLS),
            detail={"choices": listed_in(asked, len(_LETTERS))},
        )

    return questions(placed, _rows(placed), make)


def _rows(origin: Origin) -> Iterator[Row | BadRow]:
    try:
        entries = json.loads(origin.file().read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{origin.path}: not JSON ({' '.join(str(error).split())[:120]}); copy it again") from error
    if not isinstance(entries, dict):
        raise InputError(f"{origin.path}: no object of questions; name LogicVista's dataset.json")
    for name, fields in entries.items():
        place = f"{origin.path} {name}"
        if isinstance(fields, dict):
            yield Row(place, name, fields)
        else:
            yield BadRow(origin.path, place, name, "the question is not a JSON object")


def _letters(answer: str) -> str:
    found = sorted(part.strip() for part in answer.split(","))
    if not all(len(one) == 1 and one in _LETTERS for one in found) or len(set(found)) < len(found):
        raise BadFieldError(f'"answer" is {answer[:40]!r}, no letters of options')
    return "".join(found)


def _parse(raw: str, item: Item) -> str | None:
    return chosen_letter(raw, item) or listed_letters(raw, len(_LETTERS))


BENCHMARK = Benchmark(
    name="logicvista",
    title="LogicVista",
    family="reasoning",
    layout="Yijia-Xiao/LogicVista data/dataset.json and data/images",
    source="Yijia-Xiao/LogicVista eval/extract_accuracy.py",
    protocols=("logicvista-rule/1",),
    read=read,
    rules=lambda items: RightOrWrong("logicvista-rule/1", _parse),
)
