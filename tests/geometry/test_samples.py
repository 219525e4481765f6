"""How many rows a fit needs, and statistics carried from one set to another."""

import numpy as np
import pytest

from gapbridge.align import fit
from gapbridge.geometry.samples import cross_domain, rows_needed, size_curve


def _cloud(rows: int, seed: int, mean: float, width: int = 16) -> np.ndarray:
    random = np.random.default_rng(seed)
    made = random.normal(size=(rows, width)) * 0.4
    made[:, 0] += mean
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_the_gap_falls_with_the_rows_and_the_curve_ends_with_all_of_them() -> None:
    points = size_curve(_cloud(5000, 0, 1), _cloud(4000, 1, -1), "realign", 0, sizes=(20, 200, 9_999))
    assert [point.rows for point in points] == [20, 200, 3200]
    assert points[0].mean > 2 * points[-1].mean
    assert points[0].spread > 0
    assert points[-1].spread < points[0].spread


def test_so_many_rows_leave_the_error_that_was_asked_for() -> None:
    """Means of that many rows a side miss by 2 % of the gap, root mean square; 30 draws tell that roughly."""
    pool = [(_cloud(60_000, side, (-1) ** side)) for side in (0, 1)]
    alignment = fit(*pool)
    needed = rows_needed(alignment, 0.02)
    random = np.random.default_rng(5)
    errors = []
    for _ in range(30):
        text, image = (side[random.choice(len(side), needed)].mean(axis=0) for side in pool)
        error = (text - alignment.text_mean) * alignment.scale - (image - alignment.image_mean)
        errors.append(np.square(error).sum())
    gap = np.linalg.norm(alignment.text_mean - alignment.image_mean)
    assert np.sqrt(np.mean(errors)) == pytest.approx(0.02 * gap, rel=0.3)


def test_each_set_is_served_best_by_its_own_statistics() -> None:
    domains = {"near": (_cloud(6000, 0, 1), _cloud(6000, 1, -1)), "far": (_cloud(6000, 2, 0.3), _cloud(6000, 3, -2))}
    table = cross_domain(domains, "realign", 0)
    assert set(table) == set(table["near"]) == {"near", "far"}
    for name, other in (("near", "far"), ("far", "near")):
        assert table[other][name] > 3 * table[name][name]
