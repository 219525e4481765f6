"""The learning rate's course."""

from itertools import pairwise

import pytest

from gapbridge.train.schedule import factor, warmup_steps


def test_it_rises_by_equal_parts_and_falls_to_nearly_nothing() -> None:
    course = [factor(step, 100, 0.1) for step in range(100)]
    assert course[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert all(later < earlier for earlier, later in pairwise(course[9:]))
    assert course[54] == pytest.approx(0.5, abs=0.02)
    assert 0 < course[-1] < 1e-3


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert factor(0, 10, 0.0) == pytest.approx(1.0, abs=0.03)


def test_part_of_a_step_is_a_whole_step_of_warm_up() -> None:
    assert warmup_steps(100, 0.031) == 4
