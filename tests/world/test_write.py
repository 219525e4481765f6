"""The world as a source of records."""

import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from gapbridge.world.describe import BENCHMARKS, bound_attributes
from gapbridge.world.scenes import Scene, all_scenes, bucket, is_novel
from gapbridge.world.write import EDITS, INSTRUCT_TURNS, write

SCENES = {scene.text: scene for scene in all_scenes()}
ALLOWED = {
    "texts": {"texts"},
    "images": {"images"},
    "encoder": {"texts", "images"},
    "llm": {"texts", "images", "instruct", "probe"},
    "instruct": {"instruct"},
    "probe": {"probe"},
    "benchmark": {"benchmark"},
}


def facts(scene: Scene) -> set[tuple[str, str]]:
    return {(t.shape, t.color) for t in scene.things} | {(t.shape, t.place) for t in scene.things}


@pytest.mark.parametrize("set_name", ALLOWED)
def test_scenes_stay_in_their_buckets(tmp_path: Path, set_name: str) -> None:
    records = write(set_name, 40, 3, "benchmark", tmp_path)
    scenes = [SCENES[record["group_id"]] for record in records]
    assert {bucket(scene) for scene in scenes} <= ALLOWED[set_name]
    if set_name != "benchmark":
        assert len(records) == 40
        assert not any(map(is_novel, scenes))
    assert len({record["id"] for record in records}) == len(records)
    assert {record["source"] for record in records} == {"world"}


@pytest.mark.parametrize("set_name", ["images", "encoder", "probe", "instruct", "benchmark"])
def test_every_picture_lies_in_the_tar_under_its_digest(tmp_path: Path, set_name: str) -> None:
    records = write(set_name, 16, 0, "benchmark", tmp_path)
    with tarfile.open(tmp_path / "pictures.tar") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
        headers = {(member.mtime, member.uid, member.uname, member.mode) for member in archive}
    assert headers == {(0, 0, "", 0o644)}
    assert len(members) == len(records)
    for record in records:
        content = members[record["image"].removeprefix("own:pictures.tar#")]
        assert hashlib.sha256(content).hexdigest() == record["sha256"]
        assert Image.open(io.BytesIO(content)).size == (record["width"], record["height"])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    outcomes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        records = write("instruct", 20, seed, "benchmark", tmp_path / name)
        outcomes.append((records, (tmp_path / name / "pictures.tar").read_bytes()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] != outcomes[2][0]
    assert outcomes[0][1] != outcomes[2][1]


def test_texts_say_what_the_scene_holds(tmp_path: Path) -> None:
    for record in write("probe", 30, 0, "benchmark", tmp_path) + write("texts", 400, 0, "", tmp_path):
        assert bound_attributes(record["text"]) == facts(SCENES[record["group_id"]])


def test_the_encoders_texts_alone_name_things_in_any_order(tmp_path: Path) -> None:
    def kept(set_name: str) -> set[bool]:
        found = set()
        for record in write(set_name, 80, 0, "", tmp_path):
            things = SCENES[record["group_id"]].things
            if len(things) == 2:
                found.add(record["text"].index(things[0].shape) < record["text"].index(things[1].shape))
        return found

    assert kept("texts") == kept("probe") == {True}
    assert kept("encoder") == {True, False}


def test_the_encoders_groups_are_neighbours_and_know_how_many_things_they_show(tmp_path: Path) -> None:
    records = write("encoder", 80, 0, "benchmark", tmp_path)
    assert [record["id"] for record in records] == sorted(record["id"] for record in records)
    for start in range(0, 80, EDITS + 1):
        group = records[start : start + EDITS + 1]
        places = {any(place in one["text"] for place in ("left", "right", "top", "bottom")) for one in group}
        assert len(places) == 1
        assert len({one["group_id"] for one in group}) == EDITS + 1
    assert all(record["objects"] == len(SCENES[record["group_id"]].things) for record in records)


def test_images_have_captions_only_where_asked(tmp_path: Path) -> None:
    plain = write("images", 10, 0, "benchmark", tmp_path)
    captioned = write("images", 10, 0, "benchmark", tmp_path, captions=True)
    assert {record["caption"] for record in plain} == {None}
    assert all(bound_attributes(one["caption"]) == facts(SCENES[one["group_id"]]) for one in captioned)
    assert [{**one, "caption": None} for one in captioned] == plain


def test_dialogues_have_their_turns_and_words_that_stand_for_the_picture(tmp_path: Path) -> None:
    for record in write("instruct", 20, 0, "benchmark", tmp_path):
        assert len(record["turns"]) == INSTRUCT_TURNS
        assert bound_attributes(record["context"]) == facts(SCENES[record["group_id"]])
    for record in write("llm", 20, 0, "benchmark", tmp_path):
        assert record["text"] is None
        assert record["turns"]
        assert bound_attributes(record["context"]) == facts(SCENES[record["group_id"]])


@pytest.mark.parametrize("split", ["benchmark", "dev"])
def test_a_benchmark_asks_every_type_of_seen_and_fewer_of_novel_scenes(tmp_path: Path, split: str) -> None:
    records = write("benchmark", 20, 0, split, tmp_path)
    counts = Counter((record["benchmark"], record["novel"]) for record in records)
    assert {name: counts[name, False] for name in BENCHMARKS} == dict.fromkeys(BENCHMARKS, 20)
    assert {name: counts[name, True] for name in BENCHMARKS} == {**dict.fromkeys(BENCHMARKS, 5), "count": 0}
    for record in records:
        scene = SCENES[record["group_id"]]
        assert (bucket(scene), is_novel(scene)) == (split, record["novel"])
    numbers = Counter(record["answer"] for record in records if record["benchmark"] == "count")
    assert numbers == {"one": 10, "two": 10}
    subsets = {record["subset"] for record in records if record["benchmark"] == "pope"}
    assert subsets == {"random", "half", "swapped"}


def test_an_unknown_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such set: pictures"):
        write("pictures", 5, 0, "benchmark", tmp_path)
