"""Figures of metrics/evaluate.json, on predictions made by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.blind import mean_image
from gapbridge.evaluate.predictions import read_predictions, write_predictions
from gapbridge.evaluate.protocol import Graded, Item, grade
from gapbridge.evaluate.scores import benchmark_figures, bootstrap_interval, whole_figures
from gapbridge.evaluate.yes_no import YesNo

ANSWERS = ["red", "red", "blue", "red"]
RULES = NormalisedMatch(ANSWERS)


def _items(novel: Sequence[bool] = (False,) * 4) -> list[Item]:
    return [Item(f"i{n}", "color", f"g{n // 2}", "q", ANSWERS[n], novel=novel[n]) for n in range(4)]


def _graded(raws: Sequence[str], novel: Sequence[bool] = (False,) * 4) -> list[Graded]:
    return grade(RULES, _items(novel), ["q"] * 4, raws)


def test_score_blind_majority_and_unparsed() -> None:
    figures = benchmark_figures(RULES, _graded(["red", "red", "blue", "what"]), _graded(["blue"] * 4), seed=0)
    assert (figures["score"], figures["blind"], figures["majority"], figures["n"]) == (0.75, 0.25, 0.75, 4)
    assert (figures["unparsed"], figures["protocol"]) == (1, "normalised-match/1")
    assert "novel" not in figures
    assert "subsets" not in figures


def test_novel_items_are_scored_apart_and_enter_nothing_else() -> None:
    novel = (False, False, True, True)
    figures = benchmark_figures(RULES, _graded(["red", "blue", "blue", "?"], novel), _graded(["blue"] * 4, novel), 0)
    assert (figures["score"], figures["blind"], figures["majority"], figures["n"]) == (0.5, 0, 1, 2)
    assert figures["unparsed"] == 0
    assert {key: figures["novel"][key] for key in ("score", "blind", "n")} == {"score": 0.5, "blind": 0.5, "n": 2}


def test_a_benchmark_of_novel_items_alone_has_no_score() -> None:
    graded = _graded(["red"] * 4, (True,) * 4)
    with pytest.raises(InputError, match="every item is novel"):
        benchmark_figures(RULES, graded, graded, seed=0)


def test_subsets_and_yes_rate() -> None:
    rules = YesNo()
    items = [
        Item("0", "pope", "a", "q", "yes", "random"),
        Item("1", "pope", "b", "q", "no", "random"),
        Item("2", "pope", "c", "q", "no", "swapped"),
    ]
    seeing = grade(rules, items, ["q"] * 3, ["yes", "no", "yes"])
    figures = benchmark_figures(rules, seeing, grade(rules, items, ["q"] * 3, ["no"] * 3), seed=0)
    assert figures["yes_rate"] == pytest.approx(2 / 3)
    assert figures["subsets"] == {
        "random": {"score": 1, "blind": 0.5, "n": 2, "yes_rate": 0.5},
        "swapped": {"score": 0, "blind": 1, "n": 1, "yes_rate": 1},
    }


def test_averages_are_over_benchmarks() -> None:
    whole = whole_figures({"a": {"score": 1.0, "blind": 0.5, "n": 1}, "b": {"score": 0.5, "blind": 0.0, "n": 99}})
    assert (whole["average"], whole["average_blind"], whole["format_version"]) == (0.75, 0.25, 1)
    assert set(whole) == {"format_version", "benchmarks", "average", "average_blind"}


def _many(groups: int, size: int, seed: int) -> list[Graded]:
    """`groups` groups whose `size` items are all right or all wrong."""
    right = np.random.default_rng(seed).random(groups) < 0.7
    return [
        Graded(Item(f"{g}-{n}", "color", str(g), "q", "red"), "q", "", None, float(right[g]))
        for g in range(groups)
        for n in range(size)
    ]


def test_the_interval_redraws_groups_not_items() -> None:
    low, high = bootstrap_interval(_many(200, 1, 1), seed=0)
    expected = 2 * 1.96 * np.sqrt(0.7 * 0.3 / 200)
    assert high - low == pytest.approx(expected, rel=0.15)
    assert bootstrap_interval(_many(200, 9, 1), seed=0) == [low, high]


def test_the_interval_is_a_function_of_the_seed() -> None:
    graded = _many(50, 2, 3)
    assert bootstrap_interval(graded, 1) == bootstrap_interval(graded[::-1], 1)
    assert bootstrap_interval(graded, 1) != bootstrap_interval(graded, 2)


def test_predictions_keep_every_raw_answer(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, _graded(["red", "line\u2028end\n", "blue", ""]), {"color": RULES})
    lines = read_predictions(path)
    assert [line["raw"] for line in lines] == ["red", "line\u2028end\n", "blue", ""]
    assert [line["correct"] for line in lines] == [True, False, True, False]
    assert set(lines[0]) == {
        "item_id", "group_id", "benchmark", "protocol", "subset", "novel",
        "prompt", "raw", "parsed", "answer", "correct",
    }  # fmt: skip
    path.write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_predictions(path)


def test_the_blind_picture_is_the_mean_image_as_a_unit_vector(tmp_path: Path) -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 0, 0, 1]]
    shards = write_shards(tmp_path / "images", [(["a", "b"], rows[:2]), (["c", "d"], rows[2:])], "f", shard_rows=3)
    np.testing.assert_allclose(mean_image(shards), np.array([3, 1, 0, 0]) / np.sqrt(10), rtol=1e-6)
    opposite = write_shards(tmp_path / "zero", [(["a", "b"], np.stack([rows[0], -rows[0]]))], "f", shard_rows=3)
    with pytest.raises(ArtifactError, match="mean is zero"):
        mean_image(opposite)
