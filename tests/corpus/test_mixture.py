"""How many rows of each source, and which."""

import numpy as np
import pytest

from gapbridge.corpus.mixture import Part, choose

IDS = [f"row {number}" for number in range(1000)]


def _taken(ids: list[str], mask: np.ndarray) -> set[str]:
    return {row_id for row_id, kept in zip(ids, mask, strict=True) if kept}


def test_a_cap_takes_the_same_rows_in_whatever_order_they_come() -> None:
    (mask,) = choose([Part(IDS, rows=100)], seed=3)
    (other,) = choose([Part(IDS[::-1], rows=100)], seed=3)
    assert mask.sum() == 100 and _taken(IDS, mask) == _taken(IDS[::-1], other)
    (another,) = choose([Part(IDS, rows=100)], seed=4)
    assert _taken(IDS, another) != _taken(IDS, mask)
    assert 30 < np.flatnonzero(mask).mean() / 10 < 70  # from everywhere


def test_a_larger_cap_keeps_what_a_smaller_one_took() -> None:
    small, large = (choose([Part(IDS, rows=rows)], seed=0)[0] for rows in (100, 300))
    assert _taken(IDS, small) < _taken(IDS, large)


@pytest.mark.parametrize("rows", [None, 1000, 5000])
def test_no_cap_or_a_large_one_takes_all(rows: int | None) -> None:
    assert choose([Part(IDS, rows=rows)], seed=0)[0].all()


def test_weights_are_shares_of_what_the_scarcest_allows() -> None:
    parts = [Part(IDS, weight=3.0), Part(IDS[:100], weight=1.0), Part(IDS[:7])]
    assert [int(mask.sum()) for mask in choose(parts, seed=0)] == [300, 100, 7]
    parts = [Part(IDS, rows=60, weight=3.0), Part(IDS[:100], weight=1.0)]
    assert [int(mask.sum()) for mask in choose(parts, seed=0)] == [60, 20]
