from typing import Any

import pytest

from gapbridge.promotion.compare import compare


def lines(scores: list[float], benchmark: str = "pope", **changes: Any) -> list[dict[str, Any]]:
    return [
        {"item_id": f"{benchmark}-{n}", "benchmark": benchmark, "protocol": "p/1", "prompt": f"q{n}", "answer": "yes",
         "correct": bool(score), "novel": False, "group_id": f"g{n // 2}"} | changes
        for n, score in enumerate(scores)
    ]  # fmt: skip


def test_differences_are_paired_and_averaged_over_benchmarks() -> None:
    candidate = lines([1] * 80 + [0] * 20) + lines([1, 1, 0, 0] * 10, "count")
    champion = lines([1] * 60 + [0] * 40) + lines([1, 1, 0, 0] * 10, "count")
    found = compare(candidate, champion, seed=0)
    count, pope = found.benchmarks
    assert (count.benchmark, count.difference, count.interval) == ("count", 0.0, (0.0, 0.0))
    assert (pope.candidate, pope.champion, pope.items) == (0.8, 0.6, 100)
    assert pope.difference == pytest.approx(0.2)
    # 20 of 100 items in groups of two: standard error sqrt(.2 * .8 / 50) = .057 over groups
    assert 0.06 < pope.interval[0] < 0.13 and 0.27 < pope.interval[1] < 0.34
    assert found.average is not None and found.average.difference == pytest.approx(0.1)
    assert found.average.items == 140 and not found.unmatched


def test_the_same_errors_leave_no_doubt_where_other_errors_do() -> None:
    same = compare(lines([1, 0] * 50), lines([1, 0] * 50), seed=0).average
    # the same mean, but wrong about other groups
    other = compare(lines([1, 1, 0, 0] * 25), lines([0, 0, 1, 1] * 25), seed=0).average
    assert same is not None and other is not None
    assert same.difference == other.difference == 0
    assert same.interval == (0, 0)
    # 50 groups, each better or worse by one: 1.96 standard errors of 1 / sqrt(50)
    assert other.interval == pytest.approx((-0.277, 0.277), abs=0.04)


def test_benchmarks_about_the_same_scenes_are_not_independent() -> None:
    better, worse = [1, 1, 0, 0] * 25, [0, 0, 1, 1] * 25
    names = ("color", "count", "shape", "pope")
    same = compare(*([line for name in names for line in lines(s, name)] for s in (better, worse)), seed=0).average
    apart = [
        [{**line, "group_id": f"{name}-{line['group_id']}"} for name in names for line in lines(s, name)]
        for s in (better, worse)
    ]
    other = compare(*apart, seed=0).average
    assert same is not None and other is not None
    # four benchmarks that rise and fall together know no more than one; of scenes of their own, twice as much
    assert same.interval == pytest.approx((-0.277, 0.277), abs=0.04)
    assert other.interval == pytest.approx((-0.139, 0.139), abs=0.03)


def test_one_scene_among_many_has_no_interval_and_does_not_spoil_the_others() -> None:
    ours, theirs = lines([1, 0] * 40), lines([0, 0] * 40)
    found = compare(
        [*ours, *lines([1], "rare", group_id="only")], [*theirs, *lines([0], "rare", group_id="only")], seed=0
    )
    pope, rare = found.benchmarks
    assert rare.interval == (1.0, 1.0)
    assert 0.4 <= pope.interval[0] <= pope.interval[1] <= 0.6


def test_f1_counts_as_it_is_and_new_combinations_do_not_count() -> None:
    candidate = [*lines([1]), {**lines([1], "captions")[0], "f1": 0.75}, *lines([1], "new", novel=True)]
    champion = [*lines([1]), {**lines([1], "captions")[0], "f1": 0.5}, *lines([0], "new", novel=True)]
    found = compare(candidate, champion, seed=0)
    assert [(one.benchmark, one.difference) for one in found.benchmarks] == [("captions", 0.25), ("pope", 0.0)]


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (lines([1] * 3), "1 of the items"),
        (lines([1] * 4, protocol="p/2"), "4 of the items have another question, answer or protocol"),
        (lines([1] * 4, "count"), "only the candidate answered it"),
    ],
)
def test_other_items_are_not_compared(champion: list[dict[str, Any]], reason: str) -> None:
    found = compare(lines([1] * 4), champion, seed=0)
    assert found.unmatched["pope"].startswith(reason)
    assert found.average is None and found.benchmarks == ()


def test_the_order_of_the_lines_does_not_matter() -> None:
    candidate, champion = lines([1, 0, 1, 1, 0, 1]), lines([1, 1, 0, 0, 0, 1])
    assert compare(candidate, champion, 3) == compare(candidate[::-1], champion[::-1], 3)
