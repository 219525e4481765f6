"""Threads that work ahead: in order, not too far, and errors where they belong."""

import threading
import time
from collections.abc import Iterator

import pytest

from gapbridge.embeddings.ahead import ahead


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    assert list(ahead(slow_at_first, range(40), 4, 8)) == [item * item for item in range(40)]


def test_it_goes_on_while_a_result_is_used_and_stops_when_it_is_far_enough_ahead() -> None:
    done, asked = threading.Semaphore(0), []

    def work(item: int) -> int:
        done.release()
        return item

    def items() -> Iterator[int]:
        for item in range(100):
            asked.append(item)
            yield item

    results = ahead(work, items(), 2, 5)
    assert next(results) == 0
    for _ in range(6):  # the one that was taken, and five while nobody asks
        assert done.acquire(timeout=5)
    assert not done.acquire(timeout=0.05)
    assert asked == list(range(6))
    results.close()


def test_an_error_comes_in_its_place_and_ends_the_work() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        if item == 3:
            raise ValueError("the third")
        return item

    results = ahead(work, range(100), 1, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
