"""Scenes: all of them, each in one bucket, drawn evenly, edited without leaving what is allowed."""

from collections import Counter

import numpy as np
import pytest

from gapbridge.world.scenes import (
    BUCKET_SHARES,
    ENCODER_BUCKETS,
    HELD_OUT_COMBINATIONS,
    SCORED_BUCKETS,
    Scene,
    Thing,
    all_scenes,
    bucket,
    draw_evenly,
    draw_with_edits,
    edits_of,
    is_novel,
    scenes_of,
)


def test_all_scenes_are_distinct_and_counted() -> None:
    scenes = all_scenes()
    assert len(scenes) == len(set(scenes)) == len({scene.text for scene in scenes}) == 3720
    assert sum(len(scene.things) == 1 for scene in scenes) == 120


def test_a_scene_does_not_depend_on_the_order_of_its_things() -> None:
    circle, ring = Thing("circle", "red", "left"), Thing("ring", "blue", "top")
    assert Scene.of(circle, ring) == Scene.of(ring, circle)
    assert Scene.of(circle).text == "red circle left"


@pytest.mark.parametrize("shared", ["shape", "color", "place"])
def test_two_things_that_share_an_attribute_are_no_scene(shared: str) -> None:
    first = {"shape": "circle", "color": "red", "place": "left"}
    second = {"shape": "ring", "color": "blue", "place": "top", shared: first[shared]}
    with pytest.raises(ValueError, match="not a scene"):
        Scene.of(Thing(**first), Thing(**second))


def test_the_bucket_of_a_scene_never_moves() -> None:
    """A change here would carry scenes between training and benchmark of two versions."""
    known = {"red circle left": "images", "blue ring top": "texts", "orange cross right": "instruct"}
    found = {scene.text: bucket(scene) for scene in all_scenes()}
    assert {text: found[text] for text in known} == known


def test_buckets_have_about_their_shares_and_cover_everything() -> None:
    counts = Counter(map(bucket, all_scenes()))
    assert counts.total() == 3720
    for name, share in BUCKET_SHARES.items():
        assert counts[name] / 3720 == pytest.approx(share, abs=0.02)


def test_novel_scenes_stand_in_the_scored_buckets_alone() -> None:
    for name in BUCKET_SHARES:
        novel = [scene for scene in scenes_of(name) if is_novel(scene)]
        assert bool(novel) == (name in SCORED_BUCKETS)
    seen = {(thing.shape, thing.color) for name in ENCODER_BUCKETS for s in scenes_of(name) for thing in s.things}
    assert len(seen) == 28
    assert not seen & HELD_OUT_COMBINATIONS


def test_an_unknown_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="no such bucket: text"):
        scenes_of("text")


def test_drawing_evenly_uses_every_scene_as_often() -> None:
    drawn = draw_evenly(np.random.default_rng(0), 2000, ("texts",), single_share=0.1)
    for things, rows in ((1, 200), (2, 1800)):
        pool = [scene for scene in scenes_of("texts") if len(scene.things) == things]
        counts = Counter(scene for scene in drawn if len(scene.things) == things)
        assert counts.total() == rows
        assert len(counts) == len(pool)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_drawing_keeps_to_novel_scenes_when_asked() -> None:
    for novel in (True, False):
        drawn = draw_evenly(np.random.default_rng(0), 50, ("benchmark",), 0.0, novel)
        assert {is_novel(scene) for scene in drawn} == {novel}


def test_drawing_follows_the_generator() -> None:
    once, again, other = (draw_evenly(np.random.default_rng(seed), 100, ("dev",)) for seed in (1, 1, 2))
    assert once == again != other


def differences(one: Scene, other: Scene) -> int:
    """Attributes (counted over both scenes' things) that one scene has and the other has not at the same thing."""
    pairs = [(a, b) for a in one.things for b in other.things]
    if len(one.things) == 1:
        return min(unlike(a, b) for a, b in pairs)
    return min(
        unlike(one.things[0], x) + unlike(one.things[1], y) for x, y in (other.things, tuple(reversed(other.things)))
    )


def unlike(a: Thing, b: Thing) -> int:
    return sum(getattr(a, name) != getattr(b, name) for name in ("shape", "color", "place"))


def test_edits_change_or_trade_one_attribute_inside_what_is_allowed() -> None:
    allowed, random = frozenset(scenes_of(*ENCODER_BUCKETS)), np.random.default_rng(0)
    changes = Counter()
    for scene in scenes_of("texts")[:300]:
        edits = edits_of(scene, random, 3, allowed)
        assert len(set(edits)) == 3
        assert scene not in edits
        assert set(edits) <= allowed
        changes.update(differences(scene, edit) for edit in edits)
    near = changes[1] + changes[2]
    assert near > 0.97 * changes.total()  # the rest filled up where neighbours ran out
    assert changes[2] > 200  # trades differ at both things


def test_edits_are_filled_up_where_neighbours_run_out() -> None:
    scene, *others = scenes_of("dev")
    assert len(edits_of(scene, np.random.default_rng(0), 5, frozenset(others[:5]))) == 5


def test_groups_of_edits_stand_together() -> None:
    drawn = draw_with_edits(np.random.default_rng(0), 402, edits=3)
    assert len(drawn) == 402
    assert set(drawn) <= set(scenes_of(*ENCODER_BUCKETS))
    near = [differences(drawn[i], drawn[i + j]) for i in range(0, 400, 4) for j in (1, 2, 3)]
    assert np.mean([steps <= 2 for steps in near]) > 0.95
