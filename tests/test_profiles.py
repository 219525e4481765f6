from pathlib import Path

import pytest
import yaml

from gapbridge.errors import InputError
from gapbridge.params import load_params
from gapbridge.profiles import apply_profile, overlay


@pytest.fixture
def profiled(workspace: Path, checkout: Path) -> Path:
    (workspace / "profiles").mkdir()
    for path in (checkout / "profiles").glob("*.yaml"):
        (workspace / "profiles" / path.name).write_bytes(path.read_bytes())
    (workspace / "params.yaml").unlink()
    return workspace


def test_a_profile_overlays_the_defaults_and_default_goes_back(profiled: Path) -> None:
    apply_profile(profiled, "default")
    before = (profiled / "params.yaml").read_bytes()
    apply_profile(profiled, "none")
    params = load_params(profiled / "params.yaml")
    assert params.realign.method == "none" and params.realign.holdout == 0.1
    apply_profile(profiled, "default")
    assert (profiled / "params.yaml").read_bytes() == before


def test_a_folder_in_place_of_the_params_is_left_alone(profiled: Path) -> None:
    (profiled / "params.yaml").mkdir()
    with pytest.raises(InputError, match="is a folder; move it away"):
        apply_profile(profiled, "default", force=True)


def test_edits_by_hand_are_kept_unless_forced(profiled: Path) -> None:
    target = profiled / "params.yaml"
    apply_profile(profiled, "smoke")
    target.write_text(target.read_text() + "# a comment is no edit\n")
    apply_profile(profiled, "default")
    edited = target.read_text().replace("seed: 0", "seed: 7")
    target.write_text(edited)
    with pytest.raises(InputError, match="--force"):
        apply_profile(profiled, "smoke")
    assert target.read_text() == edited
    apply_profile(profiled, "smoke", force=True)
    assert load_params(target).seed == 0


def test_an_unknown_profile_names_the_known_ones(profiled: Path) -> None:
    with pytest.raises(InputError, match=r"profile huge: .*smoke"):
        apply_profile(profiled, "huge")


def test_a_profile_with_a_wrong_key_is_refused_before_anything_is_written(profiled: Path) -> None:
    (profiled / "profiles" / "odd.yaml").write_text("realign: {methud: none}")
    with pytest.raises(InputError, match=r"odd\.yaml: realign\.methud"):
        apply_profile(profiled, "odd")
    assert not (profiled / "params.yaml").exists()


def test_sections_merge_but_another_kind_of_source_replaces() -> None:
    base = {"a": {"format": "world", "rows": 5}, "b": {"x": 1, "y": [1, 2]}}
    changes = {"a": {"format": "jsonl", "path": "p"}, "b": {"y": [3]}}
    assert overlay(base, changes) == {"a": changes["a"], "b": {"x": 1, "y": [3]}}
    assert overlay(base, {"a": {"rows": 6}})["a"] == {"format": "world", "rows": 6}
    assert yaml.safe_load("a: null") == {"a": None} and overlay(base, {"a": None})["a"] is None
