"""A scene becomes a picture: flat shapes on a light ground, no two drawings alike.

Everything is drawn at twice the size and reduced, which gives smooth edges for the price of one resize.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from gapbridge.world.scenes import Scene, Thing

SIDE = 64
"""Width and height of a picture in pixels."""

COLORS_RGB = {
    "red": (215, 45, 45),
    "green": (50, 165, 70),
    "blue": (50, 85, 215),
    "yellow": (235, 205, 45),
    "purple": (145, 60, 185),
    "orange": (240, 135, 35),
}
CENTERS = {"left": (13, 32), "right": (51, 32), "top": (32, 13), "bottom": (32, 51)}
"""(x, y) in pixels, before the jitter of at most two pixels."""

_OVERSAMPLING = 2


def draw(scene: Scene, random: np.random.Generator) -> Image.Image:
    """One RGB picture of 64 × 64; ground, place, size, angle and colour vary by `random`."""
    ground = random.uniform(215, 250) + random.uniform(-8, 8, 3)
    picture = Image.new("RGB", (SIDE * _OVERSAMPLING,) * 2, _rgb(ground))
    canvas = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw_thing(canvas, thing, _rgb(ground), random)
    return picture.reduce(_OVERSAMPLING)


def _draw_thing(
    canvas: ImageDraw.ImageDraw,
    thing: Thing,
    ground: tuple[int, ...],
    random: np.random.Generator,
) -> None:
    center = (np.array(CENTERS[thing.place]) + random.uniform(-2, 2, 2)) * _OVERSAMPLING
    radius = random.uniform(9.5, 11) * _OVERSAMPLING
    angle = random.uniform(-0.12, 0.12)
    color = _rgb(np.array(COLORS_RGB[thing.color]) + random.uniform(-14, 14, 3))
    if thing.shape in ("circle", "ring"):
        canvas.ellipse(_box(center, radius), fill=color)
        if thing.shape == "ring":
            canvas.ellipse(_box(center, radius * 0.5), fill=ground)
    else:
        canvas.polygon(_corners(thing.shape, center, radius, angle), fill=color)


def _box(center: np.ndarray, radius: float) -> tuple[float, ...]:
    return (
        center[0] - radius,
        center[1] - radius,
        center[0] + radius,
        center[1] + radius,
    )


def _corners(shape: str, center: np.ndarray, radius: float, angle: float) -> list[tuple[float, float]]:
    """The outline of a square, triangle or cross, turned by `angle` (radians) about its centre."""
    if shape == "square":
        outline = [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    elif shape == "triangle":
        outline = [(0, -1.05), (1, 0.85), (-1, 0.85)]
    else:
        arm = 0.34
        quarter = [(-arm, -1), (arm, -1), (arm, -arm)]
        outline = [_turned(point, turn * math.pi / 2) for turn in range(4) for point in quarter]
    turned = [_turned(point, angle) for point in outline]
    return [(float(center[0] + radius * x), float(center[1] + radius * y)) for x, y in turned]


def _turned(point: tuple[float, float], angle: float) -> tuple[float, float]:
    x, y = point
    return (
        x * math.cos(angle) - y * math.sin(angle),
        x * math.sin(angle) + y * math.cos(angle),
    )


def _rgb(channels: np.ndarray) -> tuple[int, ...]:
    return tuple(round(min(max(float(value), 0), 255)) for value in channels)
