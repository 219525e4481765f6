"""What is said about a scene is true, complete, and the same for the same generator."""

import numpy as np
import pytest

from gapbridge.world.describe import (
    BENCHMARKS,
    MIXTURE,
    SUBSETS,
    ask,
    bound_attributes,
    caption,
    dialogue,
    questions,
    reading,
)
from gapbridge.world.scenes import COLORS, HELD_OUT_COMBINATIONS, SHAPES, Scene, Thing, all_scenes, scenes_of

ONE = Scene.of(Thing("ring", "orange", "top"))
TWO = Scene.of(Thing("circle", "red", "left"), Thing("square", "blue", "bottom"))
SCENES = [ONE, TWO, *all_scenes()[::97]]


def facts(scene: Scene, places: bool = True) -> set[tuple[str, str]]:
    colors = {(thing.shape, thing.color) for thing in scene.things}
    return colors | ({(thing.shape, thing.place) for thing in scene.things} if places else set())


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("short", [False, True])
def test_captions_state_exactly_the_scene(random: np.random.Generator, short: bool) -> None:
    for scene in SCENES * 10:
        assert bound_attributes(caption(scene, random, short)) == facts(scene, places=not short)


def test_things_are_named_in_the_scenes_order_unless_shuffled(random: np.random.Generator) -> None:
    def circle_first(text: str) -> bool:
        return text.index("circle") < text.index("square")

    assert {circle_first(caption(TWO, random)) for _ in range(30)} == {True}
    assert {circle_first(caption(TWO, random, shuffled=True)) for _ in range(30)} == {True, False}


def test_descriptions_state_exactly_the_scene(random: np.random.Generator) -> None:
    for scene in SCENES:
        assert bound_attributes(ask(scene, "describe", random).answer) == facts(scene)
        assert bound_attributes(ask(scene, "briefly", random).answer) == facts(scene, places=False)


def test_bound_attributes_binds_and_ignores_the_rest() -> None:
    read = bound_attributes("A Red circle at the TOP, near some blue ring .")
    assert read == {("circle", "red"), ("circle", "top"), ("ring", "blue")}
    assert bound_attributes("red blue circle ring left") == {("circle", "blue"), ("ring", "left")}
    assert bound_attributes("on the left , nothing") == set()


@pytest.mark.parametrize(("kind", "answers"), [("color", "color"), ("shape", "shape"), ("position", "place")])
def test_attribute_questions_ask_for_one_thing(random: np.random.Generator, kind: str, answers: str) -> None:
    for scene in SCENES * 5:
        found = ask(scene, kind, random)
        (thing,) = [t for t in scene.things if getattr(t, answers) == found.answer]
        assert (thing.color if kind == "shape" else thing.shape) in found.question


def test_count() -> None:
    random = np.random.default_rng(0)
    assert [ask(scene, "count", random).answer for scene in (ONE, TWO)] == ["one", "two"]


@pytest.mark.parametrize("subset", SUBSETS)
def test_existence_is_affirmed_half_the_time_and_denied_in_the_named_manner(
    random: np.random.Generator, subset: str
) -> None:
    shared = {"random": 0, "half": 1, "swapped": 2}[subset]
    drawn = [ask(TWO, "existence", random, subset) for _ in range(400)]
    assert 160 < sum(question.answer == "yes" for question in drawn) < 240
    for found in drawn:
        words = set(found.question.split())
        (color,), (shape,) = words & set(COLORS), words & set(SHAPES)
        there = (shape, color) in facts(TWO)
        assert there == (found.answer == "yes")
        if not there:
            assert (color in ("red", "blue")) + (shape in ("circle", "square")) == shared
        assert found.subset == subset


def test_a_thing_is_at_its_place_half_the_time_and_nowhere_else(random: np.random.Generator) -> None:
    answers = []
    for scene in SCENES * 40:
        asked = ask(scene, "placed", random)
        shape, place = asked.question.split()[-2:]
        assert shape in {thing.shape for thing in scene.things}
        there = (shape, place) in {(thing.shape, thing.place) for thing in scene.things}
        assert asked.answer == ("yes" if there else "no")
        answers.append(asked.answer)
    assert 0.45 < answers.count("yes") / len(answers) < 0.55


def test_one_thing_cannot_be_swapped(random: np.random.Generator) -> None:
    assert {ask(ONE, "existence", random, "swapped").subset for _ in range(20)} == {"half"}


def test_training_never_names_a_held_out_combination(random: np.random.Generator) -> None:
    for scene in scenes_of("texts", "instruct"):
        text, turns = reading(scene, random)
        said = text + " ".join(turn["question"] + turn["answer"] for turn in turns)
        assert not any(f"{color} {shape}" in said for shape, color in HELD_OUT_COMBINATIONS)


def test_a_dialogue_asks_different_things_in_all_kinds(random: np.random.Generator) -> None:
    seen = set()
    for scene in SCENES * 10:
        turns = dialogue(scene, random, turns=3)
        assert len({turn["question"].rstrip("?") for turn in turns}) == 3
        seen |= {turn["question"].split()[0] for turn in turns}
    assert seen == {"is", "does", "what", "where", "how", "describe"}


def test_a_mixture_of_one_kind_asks_that_alone(random: np.random.Generator) -> None:
    assert dialogue(TWO, random, 4, {"count": 1.0})[0]["answer"] == "two"
    assert len(dialogue(TWO, random, 4, {"position": 1.0})) == 2


def test_reading_describes_in_the_order_of_its_caption(random: np.random.Generator) -> None:
    for _ in range(50):
        text, turns = reading(TWO, random, 5)
        for turn in turns:
            if turn["question"] == "describe the picture":
                said = turn["answer"]
                assert (said.index("circle") < said.index("square")) == (text.index("circle") < text.index("square"))


def test_questions_serve_every_benchmark_and_are_reproducible() -> None:
    one, two = (questions(TWO, np.random.default_rng(3)) for _ in range(2))
    assert one == two and set(one) == set(BENCHMARKS)
    assert {question.kind for question in one.values()} <= set(MIXTURE)


def test_unknown_kinds_and_subsets_are_refused(random: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="size"):
        ask(TWO, "size", random)
    with pytest.raises(ValueError, match="near"):
        ask(TWO, "existence", random, "near")


def test_the_language_model_reads_lists_as_well_as_sentences(random: np.random.Generator) -> None:
    texts = [reading(TWO, random, 1)[0] for _ in range(40)]
    lists = {text for text in texts if " , " in text and ":" not in text}
    assert lists == {" , ".join(thing.text for thing in order) for order in (TWO.things, TWO.things[::-1])}
    assert 5 < sum(text in lists for text in texts) < 35
