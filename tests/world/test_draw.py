"""Pictures show what the scene says, where it says, and no two are alike."""

import numpy as np
import pytest

from gapbridge.world.draw import CENTERS, COLORS_RGB, SIDE, draw
from gapbridge.world.scenes import COLORS, PLACES, SHAPES, Scene, Thing


def pixels(scene: Scene, seed: int = 0) -> np.ndarray:
    return np.asarray(draw(scene, np.random.default_rng(seed))).astype(int)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Which pixels (64, 64) are no ground: grey has nearly equal channels."""
    return picture.max(2) - picture.min(2) > 45


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_thing_stands_at_its_place(shape: str, place: str) -> None:
    rows, columns = np.nonzero(coloured(pixels(Scene.of(Thing(shape, "red", place)))))
    assert (columns.mean(), rows.mean()) == pytest.approx(CENTERS[place], abs=4)
    assert columns.min() > 0
    assert columns.max() < SIDE - 1


@pytest.mark.parametrize("color", COLORS)
def test_the_thing_has_its_colour(color: str) -> None:
    for seed in range(5):
        picture = pixels(Scene.of(Thing("square", color, "left")), seed)
        seen = picture[28:36, 10:16].reshape(-1, 3).mean(0)
        nearest = min(COLORS_RGB, key=lambda name: np.abs(seen - COLORS_RGB[name]).sum())
        assert nearest == color


def test_shapes_differ_in_how_much_they_cover() -> None:
    areas = {shape: coloured(pixels(Scene.of(Thing(shape, "blue", "top")))).sum() for shape in SHAPES}
    assert areas["circle"] > areas["square"] > areas["triangle"] > 0
    assert areas["circle"] > 1.2 * areas["ring"]


def test_a_ring_is_empty_in_the_middle_and_a_circle_is_not() -> None:
    for shape, filled in (("ring", False), ("circle", True)):
        assert coloured(pixels(Scene.of(Thing(shape, "purple", "bottom"))))[51, 32] == filled


def test_two_things_are_both_drawn() -> None:
    picture = pixels(Scene.of(Thing("circle", "red", "left"), Thing("square", "blue", "right")))
    assert coloured(picture)[32, 13]
    assert coloured(picture)[32, 51]
    assert not coloured(picture)[5, 5]


def test_a_picture_is_a_function_of_scene_and_generator() -> None:
    scene = Scene.of(Thing("cross", "green", "top"))
    assert (pixels(scene, 3) == pixels(scene, 3)).all()
    assert (pixels(scene, 3) != pixels(scene, 4)).any()
    assert pixels(scene).shape == (SIDE, SIDE, 3)
