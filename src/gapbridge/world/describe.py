"""What is said about a scene: captions, questions with their answers, dialogues; and a caption read back.

Everything is drawn from a `numpy.random.Generator`. Questions that deny something never name a combination of
shape and colour that is held out of training, so that no training set teaches the model to say no to it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

from gapbridge.world.scenes import COLORS, HELD_OUT_COMBINATIONS, PLACES, SHAPES, Scene, Thing

BENCHMARKS = {
    "pope": "existence",
    "color": "color",
    "shape": "shape",
    "position": "position",
    "count": "count",
    "caption_f1": "describe",
}
"""The kind of question that each benchmark asks."""

MIXTURE = {
    "describe": 1.5,
    "briefly": 0.3,
    "existence": 3.0,
    "color": 3.0,
    "shape": 1.5,
    "placed": 3.0,
    "position": 3.0,
    "count": 0.3,
}
"""Weights of the kinds in a dialogue."""

SUBSETS = ("random", "half", "swapped")
"""What a denied thing shares with the scene: nothing, one attribute, or both but of different things."""

_TURNS = 5
_MARKED_SHARE = 0.25  # of the questions end in a question mark, as people's do
_LONG = ("a picture of {}", "there is {}", "{}")
_NUMBERS = ("zero", "one", "two")
_ATTEMPTS = 20
_LISTED_SHARE = 0.5
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Question:
    """One question about a scene; `subset` says for existence how its denied thing is (or would be) chosen."""

    kind: str
    question: str
    answer: str
    subset: str | None = None

    @property
    def turn(self) -> dict[str, str]:
        """The question as a turn of a record."""
        return {"question": self.question, "answer": self.answer}


def caption(scene: Scene, random: Generator, short: bool = False, shuffled: bool = False) -> str:
    """A sentence with every attribute of the scene; a `short` one leaves the places out.

    Things are named in the scene's own order, or in any order when `shuffled`.
    """
    return _caption(_ordered(scene, random) if shuffled else scene.things, random, short)


def ask(scene: Scene, kind: str, random: Generator, subset: str | None = None) -> Question:
    """A question of `kind` (a key of `MIXTURE`) about the scene; existence is affirmed half the time.

    `subset` picks the manner of denial; the scene falls back to `half` where it has no two things to swap, and the
    question says which manner it got. Raises ValueError for an unknown kind or subset.
    """
    return _ask(scene.things, kind, random, subset)


def questions(scene: Scene, random: Generator) -> dict[str, Question]:
    """One question for each benchmark."""
    return {benchmark: ask(scene, kind, random) for benchmark, kind in BENCHMARKS.items()}


def dialogue(
    scene: Scene, random: Generator, turns: int = _TURNS, mixture: Mapping[str, float] = MIXTURE
) -> list[dict[str, str]]:
    """Turns about a picture of the scene, no question twice where the mixture allows it."""
    return _dialogue(scene.things, random, turns, mixture)


def reading(
    scene: Scene, random: Generator, turns: int = _TURNS, mixture: Mapping[str, float] = MIXTURE
) -> tuple[str, list[dict[str, str]]]:
    """A long caption or a bare list, and turns about it; descriptions keep its order.

    A list has about as many words as a picture has visual tokens: what is learned about one serves the other.
    """
    things = _ordered(scene, random)
    listed = random.random() < _LISTED_SHARE
    context = " , ".join(thing.text for thing in things) if listed else _caption(things, random, short=False)
    return context, _dialogue(things, random, turns, mixture)


def bound_attributes(text: str) -> set[tuple[str, str]]:
    """The facts a caption states, as (shape, colour) and (shape, place) pairs; other words are passed over."""
    facts = set()
    color, shape = None, None
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in COLORS:
            color, shape = word, None
        elif word in SHAPES:
            shape = word
            if color:
                facts.add((shape, color))
            color = None
        elif word in PLACES and shape:
            facts.add((shape, word))
    return facts


def _ordered(scene: Scene, random: Generator) -> tuple[Thing, ...]:
    return tuple(scene.things[i] for i in random.permutation(len(scene.things)))


def _choice(random: Generator, values: Sequence[_Value]) -> _Value:
    return values[int(random.integers(len(values)))]


def _name(color: str, shape: str) -> str:
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}"


def _clause(thing: Thing) -> str:
    return f"{_name(thing.color, thing.shape)} {thing.place}"


def _caption(things: Sequence[Thing], random: Generator, short: bool) -> str:
    if short and random.random() < 0.5:
        return " , ".join(f"{thing.color} {thing.shape}" for thing in things)
    if short:
        return _brief(things)
    form = int(random.integers(len(_LONG) + 1))
    if form < len(_LONG):
        return _LONG[form].format(_full(things))
    objects = "object" if len(things) == 1 else "objects"
    return f"{_NUMBERS[len(things)]} {objects} : {' , '.join(map(_clause, things))}"


def _full(things: Sequence[Thing]) -> str:
    return " and ".join(map(_clause, things))


def _brief(things: Sequence[Thing]) -> str:
    return " and ".join(_name(thing.color, thing.shape) for thing in things)


def _ask(things: Sequence[Thing], kind: str, random: Generator, subset: str | None = None) -> Question:
    thing = _choice(random, things)
    if kind == "existence":
        return _existence(things, random, subset)
    if kind == "color":
        return Question(kind, f"what color is the {thing.shape}", thing.color)
    if kind == "shape":
        return Question(kind, f"what shape is the {thing.color} object", thing.shape)
    if kind == "placed":
        return _placed(things, random)
    if kind == "position":
        return Question(kind, f"where is the {thing.shape}", thing.place)
    if kind == "count":
        return Question(kind, "how many objects are there", _NUMBERS[len(things)])
    if kind == "describe":
        return Question(kind, "describe the picture", _full(things))
    if kind == "briefly":
        return Question(kind, "describe the picture briefly", _brief(things))
    raise ValueError(f"no such kind of question: {kind}")


def _existence(things: Sequence[Thing], random: Generator, subset: str | None) -> Question:
    if subset is not None and subset not in SUBSETS:
        raise ValueError(f"no such subset: {subset}")
    possible = [name for name in SUBSETS if _denials(things, name)]
    chosen = subset or _choice(random, SUBSETS)
    chosen = chosen if chosen in possible else "half"
    if random.random() < 0.5:
        thing = _choice(random, things)
        shape, color, answer = thing.shape, thing.color, "yes"
    else:
        (shape, color), answer = _choice(random, _denials(things, chosen)), "no"
    form = _choice(random, ("is there {}", "does the picture show {}"))
    return Question("existence", form.format(_name(color, shape)), answer, chosen)


def _placed(things: Sequence[Thing], random: Generator) -> Question:
    """Whether a thing is at a place; half the denials name another thing's place, the others any wrong one."""
    thing = _choice(random, things)
    place, answer = thing.place, "yes"
    if random.random() < 0.5:
        taken = [other.place for other in things if other is not thing]
        wrong = taken if taken and random.random() < 0.5 else [one for one in PLACES if one != thing.place]
        place, answer = _choice(random, wrong), "no"
    return Question("placed", f"is there a {thing.shape} {place}", answer)


def _denials(things: Sequence[Thing], subset: str) -> list[tuple[str, str]]:
    """Every (shape, colour) that the scene lacks in this manner and that training may name."""
    shapes, colors = {thing.shape for thing in things}, {thing.color for thing in things}
    there = {(thing.shape, thing.color) for thing in things}
    rights = {"random": 0, "half": 1, "swapped": 2}[subset]
    return [
        (shape, color)
        for shape in SHAPES
        for color in COLORS
        if (shape in shapes) + (color in colors) == rights
        and (shape, color) not in there
        and (shape, color) not in HELD_OUT_COMBINATIONS
    ]


def _dialogue(
    things: Sequence[Thing], random: Generator, turns: int, mixture: Mapping[str, float]
) -> list[dict[str, str]]:
    kinds = list(mixture)
    total = sum(mixture.values())
    shares = [mixture[kind] / total for kind in kinds]
    asked: dict[str, str] = {}
    for _ in range(turns * _ATTEMPTS):
        if len(asked) == turns:
            break
        found = _ask(things, kinds[int(random.choice(len(kinds), p=shares))], random)
        if found.question not in asked:
            asked[found.question] = found.answer
    return [{"question": _marked(question, random), "answer": answer} for question, answer in asked.items()]


def _marked(question: str, random: Generator) -> str:
    return f"{question}?" if question.split()[0] != "describe" and random.random() < _MARKED_SHARE else question
