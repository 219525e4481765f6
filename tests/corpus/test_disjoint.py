"""Sets that must not overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbridge.corpus.disjoint import APART, Extent, prove
from gapbridge.corpus.records import SETS
from gapbridge.errors import InputError

GROUPS = st.frozensets(st.integers(0, 6).map(str), max_size=3)


def extents(**changes: Extent) -> dict[str, Extent]:
    apart = {name: Extent(frozenset({f"group of {name}"}), frozenset({f"picture of {name}"})) for name in SETS}
    return apart | changes


def test_the_proof_counts_groups_and_names_every_pair() -> None:
    proof = prove(extents())
    assert set(proof["pairs"]) == {f"{left}/{right}" for left, right, _ in APART}
    assert all(pair == {"shared_groups": 0, "shared_pictures": 0} for pair in proof["pairs"].values())
    assert proof["sets"]["texts"]["groups"] == 1
    assert len({entry["digest"] for entry in proof["sets"].values()}) == len(SETS)


@pytest.mark.parametrize(("left", "right", "what"), APART)
def test_a_shared_group_is_refused(left: str, right: str, what: str) -> None:
    other = extents()[left]
    overlap = Extent(other.groups | {"own"}, frozenset())
    with pytest.raises(InputError, match=rf"sources\.{left} and sources\.{right} share 1 group \(.*{what}"):
        prove(extents(**{right: overlap}))


def test_the_same_picture_under_another_name_is_refused() -> None:
    copy = Extent(frozenset({"other name"}), extents()["images"].pictures)
    with pytest.raises(InputError, match=r"images and sources.benchmark share 1 picture file "):
        prove(extents(benchmark=copy))


def test_the_encoder_may_see_the_pictures_of_the_alignment_again() -> None:
    assert prove(extents(encoder=extents()["images"]))["sets"]["encoder"]["groups"] == 1


@given(GROUPS, GROUPS)
def test_texts_and_images_pass_exactly_when_they_share_nothing(texts: frozenset[str], images: frozenset[str]) -> None:
    given_sets = extents(texts=Extent(texts, frozenset()), images=Extent(images, frozenset()))
    if texts & images:
        with pytest.raises(InputError):
            prove(given_sets)
    else:
        prove(given_sets)


def test_near_twins_are_counted_and_stop_nothing() -> None:
    looks = ("0" * 48, "f" * 48)
    asked = Extent(frozenset({"asked"}), frozenset(), looks)
    seen = Extent(frozenset({"seen"}), frozenset(), looks[:1])
    twins = prove(extents(benchmark=asked, instruct=seen))["near_twins"]
    assert twins == {"pictures": 2, "instruct": 1}
