"""What is kept out, by whole groups, and how far the gap there is from what chance leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.align import (
    Options,
    RowBatches,
    Side,
    effective_number,
    fit,
    fit_held_out,
    held_out_groups,
    held_out_rows,
    sampling_floor,
)
from gapbridge.errors import InputError
from tests.align.oracle import Cloud, oracle


def _side(rows: np.ndarray, name: str) -> Side:
    return Side(rows, [f"{name}{i}" for i in range(len(rows))])


@given(st.lists(st.integers(0, 8).map(str), min_size=3), st.floats(0.05, 0.6), st.integers(0, 5))
def test_groups_stay_together(groups: list[str], fraction: float, seed: int) -> None:
    mask = held_out_groups(groups, fraction, seed)
    held, kept = (
        {g for g, m in zip(groups, mask, strict=True) if m},
        {g for g, m in zip(groups, mask, strict=True) if not m},
    )
    assert held and not held & kept
    assert len(held) == max(1, round(fraction * len(set(groups))))


def test_the_seed_chooses_and_the_order_does_not() -> None:
    groups = [f"scene {i}" for i in range(500)]
    mask = held_out_groups(groups, 0.1, 0)
    assert mask.sum() == 50
    assert (held_out_groups(groups[::-1], 0.1, 0)[::-1] == mask).all()
    assert (held_out_groups(groups, 0.1, 1) != mask).any()
    assert not held_out_groups(groups, 0.0, 0).any()


def test_effective_number() -> None:
    assert effective_number(list("abcd")) == 4
    assert effective_number(list("aabbcc")) == pytest.approx(3)
    assert effective_number(list("aaab")) == pytest.approx(1 / (0.75**2 + 0.25**2))


def test_nothing_held_out(cloud: Cloud) -> None:
    texts, images = cloud(120, 0), cloud(90, 1)
    alignment, metrics = fit_held_out(_side(texts, "t"), _side(images, "i"), Options(holdout=0))
    assert metrics["gap_heldout"] is None and metrics["sampling_floor"] is None
    assert metrics["effective_texts_heldout"] is None
    assert (metrics["n_texts"], metrics["n_images"], metrics["width"]) == (120, 90, 24)
    assert metrics["gap_before"] == pytest.approx(np.linalg.norm(texts.mean(0) - images.mean(0)), abs=1e-12)
    after = oracle(texts, images, "realign").mean(0) - images.mean(0)
    assert metrics["gap_after"] == pytest.approx(np.linalg.norm(after), abs=1e-12)
    assert metrics["scale"] == alignment.scale


def test_statistics_come_from_the_fitted_rows_alone(cloud: Cloud) -> None:
    texts, images = _side(cloud(120, 0), "t"), _side(cloud(90, 1), "i")
    alignment, metrics = fit_held_out(texts, images, Options(holdout=0.2, seed=3))
    text_mask, image_mask = held_out_groups(texts.groups, 0.2, 3), held_out_groups(images.groups, 0.2, 3)
    alone = fit(texts.rows[~text_mask], images.rows[~image_mask])
    np.testing.assert_allclose(alignment.drift_means, alone.drift_means, atol=1e-13)
    assert (metrics["n_texts"], metrics["n_images"]) == (96, 72)
    gap = alone.move(texts.rows[text_mask]).mean(0) - images.rows[image_mask].mean(0)
    assert metrics["gap_heldout"] == pytest.approx(np.linalg.norm(gap), abs=1e-12)
    by_hand = np.sqrt(alone.image_trace * (1 / 72 + 1 / 18) + alone.scale**2 * alone.text_trace * (1 / 96 + 1 / 24))
    assert metrics["sampling_floor"] == pytest.approx(by_hand, rel=1e-12)


def test_the_floor_is_what_chance_leaves(cloud: Cloud) -> None:
    texts, images = cloud(3000, 0), cloud(2000, 1)
    ratios = []
    for seed in range(12):
        metrics = fit_held_out(_side(texts, "t"), _side(images, "i"), Options("anchor", 0.1, seed))[1]
        ratios.append(metrics["gap_heldout"] / metrics["sampling_floor"])
    assert 0.8 < np.mean(ratios) < 1.2


def test_rows_that_repeat_a_group_count_less(cloud: Cloud) -> None:
    texts, images = np.repeat(cloud(300, 0), 10, axis=0), cloud(2000, 1)
    groups = [str(i // 10) for i in range(3000)]
    metrics = fit_held_out(Side(texts, groups), _side(images, "i"), Options("anchor"))[1]
    assert metrics["effective_texts"] == pytest.approx(270)
    assert metrics["effective_texts_heldout"] == pytest.approx(30)
    assert 0.5 < metrics["gap_heldout"] / metrics["sampling_floor"] < 1.5


def test_floor_without_scale_uses_the_raw_trace(cloud: Cloud) -> None:
    alignment = fit(cloud(50, 0), cloud(40, 1), "anchor")
    expected = np.sqrt(alignment.image_trace * (1 / 40 + 1 / 4) + alignment.text_trace * (1 / 50 + 1 / 5))
    assert sampling_floor(alignment, (40, 4), (50, 5)) == pytest.approx(expected)


@pytest.mark.parametrize("holdout", [-0.1, 1.0])
def test_holdout_must_leave_something(holdout: float, cloud: Cloud) -> None:
    with pytest.raises(InputError, match="must be 0 or more and less than 1"):
        fit_held_out(_side(cloud(9, 0), "t"), _side(cloud(9, 1), "i"), Options(holdout=holdout))


def test_one_group_cannot_be_split(cloud: Cloud) -> None:
    with pytest.raises(InputError, match=r"texts: too few groups \(1\)"):
        fit_held_out(Side(cloud(9, 0), ["same"] * 9), _side(cloud(9, 1), "i"))


@pytest.mark.parametrize("spoilt", ["texts", "images"])
@pytest.mark.parametrize("grouped", [True, False])
def test_bad_rows_alone_are_nothing_to_measure_on(cloud: Cloud, spoilt: str, grouped: bool) -> None:
    rows = {"texts": cloud(60, 0), "images": cloud(60, 1)}
    options = Options(holdout=0.05)
    names = [f"{number}" for number in range(60)]
    held = held_out_groups(names, 0.05, 0) if grouped else held_out_rows(60, 0.05, 0, spoilt)
    rows[spoilt][held] = np.nan
    sides = (
        Side(RowBatches(one, name, max_bad_fraction=0.1), names if grouped else None, 60) for name, one in rows.items()
    )
    with pytest.raises(InputError, match=rf"{spoilt}: all 3 rows held out are bad; hold more out"):
        fit_held_out(*sides, options)
