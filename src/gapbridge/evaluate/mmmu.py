"""MMMU, validation split: 900 college questions of 30 subjects in six disciplines, four or more options, some open.

Layout: parquet, the copy lmms-lab/MMMU or the maintainers' MMMU/MMMU: id, question, options (a Python list as text),
answer, question_type, image_1 … image_7. Questions with several pictures are left out. Protocol: MMMU-Benchmark/MMMU,
mmmu/utils/eval_utils.py and data_utils.py, with the prompts of mmmu/configs/llava1.5.yaml.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.corpus.rows import Embedded
from gapbridge.evaluate.answers import Short, short_answers, short_forms
from gapbridge.evaluate.layouts import OPTION_LETTER, SHORT_ANSWER, embedded, letter, listed, one_of, texts
from gapbridge.evaluate.protocol import Benchmark, Item
from gapbridge.evaluate.right_or_wrong import RightOrWrong, chosen_letter

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
_DISCIPLINE = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
PICTURES = tuple(f"image_{number}" for number in range(1, 8))
_MARK = re.compile(r"<image (\d)>")
_NAME = re.compile(r"[a-z]+_(\w+)_\d+")


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions about one picture, of multiple choice or with a short answer."""
    del kind

    def make(row: parquet.TableRow) -> Draft | None:
        name = identified(row.fields, "id")
        picture = single_picture(row)
        if picture is None:
            return None
        subject = _NAME.fullmatch(name)
        if subject is None or subject.group(1) not in _DISCIPLINE:
            raise BadFieldError('"id" names no subject of MMMU')
        asked, answer, detail = _asked(row.fields)
        return question(
            origin,
            row.place,
            name,
            benchmark="mmmu",
            text=asked,
            answer=answer,
            picture=picture,
            subset=_DISCIPLINE[subject.group(1)],
            detail={**detail, "subject": subject.group(1)},
        )

    return questions(origin, parquet.rows(origin, PICTURES, "validation-"), make)


def single_picture(row: parquet.TableRow) -> Embedded | None:
    """The one picture that question and options name; None where they name several. Raises BadFieldError for none."""
    named = {f"image_{sign}" for sign in _MARK.findall(f"{row.fields.get('question')} {row.fields.get('options')}")}
    columns = sorted(named or row.pictures)
    if len(columns) > 1:
        return None
    return embedded(row, columns[0] if columns else PICTURES[0])


def literal(fields: Mapping[str, Any], key: str) -> object:
    """The Python list that stands as text under `key`. Raises BadFieldError when it is none."""
    try:
        return ast.literal_eval(words(fields, key))
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise BadFieldError(f'"{key}" is no list') from error


def _asked(fields: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The prompt, the right answer, and what the rules need besides."""
    asked = words(fields, "question")
    if one_of(fields, "question_type", ("multiple-choice", "open")) == "multiple-choice":
        choices = texts(literal(fields, "options"), "options")
        prompt = f"{asked}\n{listed(choices, '({}) {}')}\n\n{OPTION_LETTER}"
        return prompt, letter(fields, "answer", len(choices)), {"choices": choices}
    right = _right_answers(words(fields, "answer"))
    return f"{asked}\n{SHORT_ANSWER}", right[0], {"answers": right}


def _right_answers(answer: str) -> list[str]:
    """The answer, or those of a Python list that stands as text."""
    if not answer.startswith("["):
        return [answer]
    found = literal({"answer": answer}, "answer")
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise BadFieldError('"answer" is no list of answers')
    return found


def _parse(raw: str, item: Item) -> Any:
    return chosen_letter(raw, item) if "choices" in item.detail else short_answers(raw) or None


def _is_right(parsed: Any, item: Item) -> bool:
    """A letter is the right one; of short answers a number is equal or a text holds the right one."""
    if "choices" in item.detail:
        return parsed == item.answer
    right = [form for answer in item.detail["answers"] for form in short_forms(answer)]
    return any(_holds(said, right) for said in parsed)


def _holds(said: Short, right: Sequence[Short]) -> bool:
    if isinstance(said, str):
        return any(isinstance(form, str) and form in said for form in right)
    return said in right


BENCHMARK = Benchmark(
    name="mmmu",
    title="MMMU (val)",
    family="reasoning",
    layout="lmms-lab/MMMU or MMMU/MMMU, validation split (parquet)",
    source="MMMU-Benchmark/MMMU mmmu/utils/eval_utils.py",
    protocols=("mmmu/1",),
    read=read,
    rules=lambda items: RightOrWrong("mmmu/1", _parse, is_right=_is_right),
    max_new_tokens=128,
)
