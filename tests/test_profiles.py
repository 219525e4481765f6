from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gapbridge.cli import cli
from gapbridge.errors import InputError
from gapbridge.params import load_params
from gapbridge.profiles import apply_profile, differences, names, overlay, profile_params, profile_text


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
    assert overlay(base, {"a": {"path": "p"}})["a"] == {"path": "p"}
    assert overlay(base, {"a": {"rows": 6}})["a"] == {"format": "world", "rows": 6}
    assert yaml.safe_load("a: null") == {"a": None} and overlay(base, {"a": None})["a"] is None


def test_a_profile_may_extend_another_one(profiled: Path) -> None:
    small, large = (profile_params(profiled, f"paper-llama3-{size}") for size in ("8b", "70b"))
    assert small.sources == large.sources and small.pretrain.training == large.pretrain.training
    assert (small.llm.pretrained, large.llm.pretrained) == (
        "models/Meta-Llama-3-8B-Instruct", "models/Meta-Llama-3-70B-Instruct"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("extends: b", "extends: a", "extends itself, by way of a, b"),
        ("extends: [b]", "seed: 1", "must be the name of a profile"),
        ("extends: huge", "seed: 1", "profile huge: not in profiles/"),
    ],
)
def test_a_wrong_base_is_told(profiled: Path, one: str, other: str, said: str) -> None:
    (profiled / "profiles/a.yaml").write_text(one)
    (profiled / "profiles/b.yaml").write_text(other)
    with pytest.raises(InputError, match=said):
        profile_text(profiled, "a")


def test_the_papers_profile_has_the_papers_numbers(profiled: Path) -> None:
    params = profile_params(profiled, "paper-llama3-8b")
    for training, rate in ((params.pretrain.training, 5e-4), (params.instruct.training, 1e-5)):
        assert (training.learning_rate, training.weight_decay, training.warmup_fraction) == (rate, 0.0, 0.03)
        assert training.steps is None and training.batch_size == 256
    assert params.instruct.llm_learning_rate == 1e-5 and params.instruct.tune == "full"
    assert params.pretrain.noise == 0 and params.pretrain.source == "aligned_text"
    assert (params.realign.method, params.realign.centroid_iterations) == ("realign", 1)
    assert params.encoder.text_template == "{}"
    assert len(params.sources.benchmark) == 11


def test_no_profile_says_what_the_default_says_already(profiled: Path) -> None:
    for name in names(profiled):
        own = yaml.safe_load((profiled / "profiles" / f"{name}.yaml").read_text())
        if name != "default":
            base = yaml.safe_load(profile_text(profiled, own.pop("extends", "default")))
            assert list(repeated(own, base)) == [], name


def repeated(own: dict[str, Any], base: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys whose value is the base's; of a source that replaces another nothing is repeated."""
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            if not {"format", "path"} & value.keys():
                yield from repeated(value, base[key], f"{prefix}{key}.")
        elif key in base and value == base[key]:
            yield f"{prefix}{key}"


def test_diff_says_what_writing_would_change_and_writes_nothing(
    profiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(profiled)
    runner = CliRunner()
    assert runner.invoke(cli, ["profile", "none", "--diff"]).stdout == "realign.method: realign -> none\n"
    assert not (profiled / "params.yaml").exists()
    apply_profile(profiled, "none")
    assert runner.invoke(cli, ["profile", "none", "--diff"]).stdout == ""
    edited = (profiled / "params.yaml").read_text().replace("seed: 0", "seed: 7")
    (profiled / "params.yaml").write_text(edited)
    assert differences(profiled, "anchor") == [("seed", 7, 0), ("realign.method", "none", "anchor")]
    said = runner.invoke(cli, ["profile", "cpu-small", "--diff"]).stdout.splitlines()
    assert "sources.texts: {format: world, rows: 20000} -> {path: texts.jsonl, rows: 2000}" in said
    assert (profiled / "params.yaml").read_text() == edited


def test_show_prints_what_would_be_written(profiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(profiled)
    shown = CliRunner().invoke(cli, ["profile", "paper-llama3-8b", "--show"]).stdout
    assert not (profiled / "params.yaml").exists()
    apply_profile(profiled, "paper-llama3-8b")
    assert shown == (profiled / "params.yaml").read_text()
