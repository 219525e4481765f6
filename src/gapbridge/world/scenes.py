"""Every scene of the small world, which of them each set may use, and how they are drawn by chance.

A scene holds one or two things, each with a shape, a colour and a place; two things of one scene
differ in all three. That makes 3,720 scenes. A scene belongs to one bucket by a hash of its text, so
that no draw, seed or row count can carry a scene from training into the benchmark.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
PLACES = ("left", "right", "top", "bottom")

HELD_OUT_COMBINATIONS = frozenset({("triangle", "purple"), ("ring", "green")})
"""(shape, colour) pairs that no training scene holds; scenes with one of them are novel."""

BUCKET_SHARES = {
    "texts": 0.50,
    "images": 0.15,
    "instruct": 0.19,
    "probe": 0.05,
    "dev": 0.04,
    "benchmark": 0.07,
}
"""Expected share of the scenes in each bucket; `dev` is for tuning, `benchmark` for the reported scores.

Texts get the most, as in life: they are what is cheap. Pictures with words, for instructions, are few.
"""

SCORED_BUCKETS = ("dev", "benchmark")
"""The only buckets whose scenes may be novel."""

ENCODER_BUCKETS = ("texts", "images")
"""Scenes of the encoder's pairs; it stands for a CLIP that saw much of the world before."""

LANGUAGE_BUCKETS = ("texts", "images", "instruct", "probe")
"""Scenes that the language model may read about, without pictures."""


@dataclass(frozen=True, order=True)
class Thing:
    """One coloured shape at one place."""

    shape: str
    color: str
    place: str

    @property
    def text(self) -> str:
        """Canonical words, such as `red circle left`."""
        return f"{self.color} {self.shape} {self.place}"


@dataclass(frozen=True)
class Scene:
    """One or two things in canonical order (sorted), so that equal scenes are equal objects."""

    things: tuple[Thing, ...]

    @classmethod
    def of(cls, *things: Thing) -> "Scene":
        """The scene of these things, in whatever order they are given.

        Raises ValueError unless there are one or two, and two differ in every attribute.
        """
        if not is_whole(things):
            raise ValueError(f"not a scene: {[thing.text for thing in things]}")
        return cls(tuple(sorted(things)))

    @property
    def text(self) -> str:
        """Canonical text, which is also the `group_id` of every record about the scene."""
        return " + ".join(thing.text for thing in self.things)


def is_whole(things: Sequence[Thing]) -> bool:
    """Whether these things make a scene: one, or two that share no shape, colour or place."""
    if len(things) == 2:
        first, second = things
        return first.shape != second.shape and first.color != second.color and first.place != second.place
    return len(things) == 1


@cache
def all_scenes() -> tuple[Scene, ...]:
    """All 3,720 scenes, the 120 of one thing first."""
    things = [Thing(shape, color, place) for shape in SHAPES for color in COLORS for place in PLACES]
    ones = [Scene.of(thing) for thing in things]
    twos = [Scene.of(a, b) for i, a in enumerate(things) for b in things[:i] if is_whole((a, b))]
    return (*ones, *twos)


@cache
def bucket(scene: Scene) -> str:
    """The one set of `BUCKET_SHARES` that the scene's hash puts it in."""
    position = int.from_bytes(hashlib.sha256(scene.text.encode()).digest()[:8]) / 2**64
    for name, share in BUCKET_SHARES.items():
        position -= share
        if position < 0:
            return name
    return name


def is_novel(scene: Scene) -> bool:
    """Whether the scene holds a combination of shape and colour that training never sees."""
    return any((thing.shape, thing.color) in HELD_OUT_COMBINATIONS for thing in scene.things)


@cache
def scenes_of(*buckets: str) -> tuple[Scene, ...]:
    """The scenes that a set drawn from these buckets may use; novel ones in the scored buckets only.

    Raises ValueError for a bucket that does not exist.
    """
    if unknown := set(buckets) - set(BUCKET_SHARES):
        raise ValueError(f"no such bucket: {', '.join(sorted(unknown))}")
    return tuple(
        scene
        for scene in all_scenes()
        if bucket(scene) in buckets and (bucket(scene) in SCORED_BUCKETS or not is_novel(scene))
    )


def draw_evenly(
    random: np.random.Generator,
    rows: int,
    buckets: Iterable[str],
    single_share: float | None = None,
    novel: bool | None = None,
) -> list[Scene]:
    """`rows` scenes in random order, none of them used more than once oftener than another of its kind.

    `single_share` of the rows hold one thing; None leaves them their share of the scenes (about 3 %).
    `novel` keeps to scenes that are novel, or to those that are not; None takes both.
    The fewer scenes the rows fall on, the fewer independent samples a statistic over them has:
    the pool of single things is small, so a share of .1 costs little and .3 halves the effective number.
    """
    pool = [scene for scene in scenes_of(*buckets) if novel is None or is_novel(scene) == novel]
    singles = [scene for scene in pool if len(scene.things) == 1]
    doubles = [scene for scene in pool if len(scene.things) == 2]
    share = len(singles) / len(pool) if single_share is None else single_share
    single_rows = round(rows * share)
    drawn = _cycle(random, singles, single_rows) + _cycle(random, doubles, rows - single_rows)
    return [drawn[i] for i in random.permutation(rows)]


def draw_with_edits(
    random: np.random.Generator,
    rows: int,
    buckets: Iterable[str] = ENCODER_BUCKETS,
    edits: int = 3,
    single_share: float = 0.1,
) -> list[Scene]:
    """`rows` scenes in groups of one scene and its edits, which stand next to each other.

    The hard negatives of contrastive training: what tells a scene from its neighbours is one attribute.
    """
    allowed = frozenset(scenes_of(*buckets))
    groups = -(-rows // (edits + 1))
    drawn = []
    for scene in draw_evenly(random, groups, buckets, single_share):
        drawn += [scene, *edits_of(scene, random, edits, allowed)]
    return drawn[:rows]


def edits_of(scene: Scene, random: np.random.Generator, count: int, allowed: frozenset[Scene]) -> list[Scene]:
    """`count` distinct neighbours of `scene` among `allowed`, each with one attribute changed or traded.

    As far as there are enough, each is with even chance a change of one thing or a trade between two.
    Where the allowed neighbours run out, random allowed scenes fill up.
    """
    trades, changes = ([other for other in kind if other in allowed] for kind in _neighbours(scene))
    found: list[Scene] = []
    while len(found) < count and (trades or changes):
        kind = trades if trades and (not changes or random.random() < 0.5) else changes
        found.append(kind.pop(int(random.integers(len(kind)))))
    if len(found) < count:
        others = sorted(allowed.difference(found, [scene]), key=lambda other: other.text)
        found += [others[i] for i in random.choice(len(others), size=count - len(found), replace=False)]
    return found


@cache
def _neighbours(scene: Scene) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """All scenes one trade away and all scenes one change away."""
    attributes = (("shape", SHAPES), ("color", COLORS), ("place", PLACES))
    traded = []
    if len(scene.things) == 2:
        first, second = scene.things
        for name, _ in attributes:
            traded.append(
                (
                    _with(first, name, getattr(second, name)),
                    _with(second, name, getattr(first, name)),
                )
            )
    changed = [
        (*scene.things[:i], _with(thing, name, value), *scene.things[i + 1 :])
        for i, thing in enumerate(scene.things)
        for name, values in attributes
        for value in values
        if value != getattr(thing, name)
    ]
    return (
        tuple(Scene.of(*things) for things in traded),
        tuple(Scene.of(*things) for things in changed if is_whole(things)),
    )


def _with(thing: Thing, attribute: str, value: str) -> Thing:
    return Thing(**{"shape": thing.shape, "color": thing.color, "place": thing.place} | {attribute: value})


def _cycle(random: np.random.Generator, scenes: Sequence[Scene], rows: int) -> list[Scene]:
    """Whole shuffled passes over `scenes`, cut off at `rows`."""
    passes = -(-rows // len(scenes)) if scenes else 0
    return [scenes[i] for _ in range(passes) for i in random.permutation(len(scenes))][:rows]
