"""The worked example writes files that ingest takes without a bad row."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars
import pytest

from gapbridge.corpus.disjoint import Extent, prove
from gapbridge.corpus.gather import gather
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.records import SETS, table

PICTURES = {"encoder": "train", "instruct": "instruct", "probe": "probe", "benchmark": "benchmark"}
FILES = {"texts": "texts.jsonl", "images": "train", "benchmark": "benchmark.jsonl"}
FORMATS = {"texts": "jsonl", "images": "folder", "benchmark": "pope"}


@pytest.fixture(scope="module")
def digits(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, polars.DataFrame]:
    """The seven sets that prepare.py wrote, as tables."""
    root = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, checkout / "examples/digits/prepare.py"], cwd=root, check=True)
    tables = {}
    for name, kind in SETS.items():
        path = f"data/digits/{FILES.get(name, f'{name}.json')}"
        images = f"data/digits/{PICTURES[name]}" if name in PICTURES else None
        rows = list(gather(Origin(name, root, path, images), FORMATS.get(name, "llava"), kind, 40_000_000))
        assert not any(isinstance(row, BadRow) for row in rows)
        tables[name] = table(kind, rows)
    return tables


def test_all_scans_are_used_and_no_set_shows_another_ones(digits: dict[str, polars.DataFrame]) -> None:
    groups = [set(digits[name]["group_id"]) for name in ("images", "instruct", "probe", "benchmark")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1797
    assert set(digits["encoder"]["group_id"]) == groups[0]
    prove({name: Extent.of(frame) for name, frame in digits.items()})


def test_there_are_at_least_500_distinct_texts(digits: dict[str, polars.DataFrame]) -> None:
    texts = digits["texts"]["text"].to_list()
    assert len(set(texts)) == len(texts) >= 500


def test_yes_is_as_likely_as_no_and_every_digit_is_asked_about(digits: dict[str, polars.DataFrame]) -> None:
    counts = Counter(digits["benchmark"].select("benchmark", "answer").iter_rows())
    yes, no = counts["yes_no", "yes"], counts["yes_no", "no"]
    assert 0.45 < yes / (yes + no) < 0.55
    assert len([answer for benchmark, answer in counts if benchmark == "digit"]) == 10


def test_answers_agree_with_the_description(digits: dict[str, polars.DataFrame]) -> None:
    """The digit that a dialogue names is the one that its sentence describes."""
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for row in digits["instruct"].iter_rows(named=True):
        answers = {turn["question"]: turn["answer"] for turn in row["turns"]}
        value = names.index(answers["Which digit is this?"])
        words = row["context"].split()
        assert names[value] in words or str(value) in words, json.dumps(row["context"])
        assert answers["Is it even?"] == ("no" if value % 2 else "yes")
        assert all(
            (answers[question] == "yes") == (names[value] in question) for question in answers if "there" in question
        )
