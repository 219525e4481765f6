from pathlib import Path

import pytest
import yaml

from gapbridge.errors import InputError
from gapbridge.params import load_params


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seed: 0", "sead: 0", "seed"),
        ("seed: 0", "seed: 0\nsead: 0", "sead: unknown key; known here: seed, sources, ingest"),
        ("seed: 0", "seed: zero", "seed: .*integer.*found 'zero'"),
        ("learning_rate: 0.002", "learning_rate: .inf", r"encoder\.training\.learning_rate: .*finite.*found inf"),
        ("learning_rate: 0.002", "learning_rate: 1e-3", r"encoder\.training\.learning_rate: .*1\.0e-3, found '1e-3'"),
        ('text_template: "{}"', "text_template: a picture", r"encoder\.text_template: needs {}.*found 'a picture'"),
        ("instruction: describe the picture", "instruction: ' '", r"pretrain\.instruction: needs some words"),
        ("rows: 4000", "rows: 1", r"geometry\.rows: .*greater than 1, found 1"),
        ("texts: {format: world, rows: 20000}", "texts: {format: world, rows: 2, row: 3}", r"row: .*known.*captions"),
        ("encoder: {format: world, rows: 24000}", "encoder: {format: world, rows: 2, row: 3}", r"encoder\.row: .*path"),
        ("method: realign", "method: magic", r"realign\.method"),
        ("holdout: 0.1", "holdout: 1.5", r"realign\.holdout"),
        ("holdout: 0.1", "holdout: '0.1'", r"realign\.holdout"),
        ("rows: 4000", "rows: 4000\n  colour: red", r"geometry\.colour"),
        ("texts: {format: world, rows: 20000}", "texts: {format: world}", r"sources\.texts: .*needs rows"),
        ("texts: {format: world, rows: 20000}", "texts: {format: jsonl}", r"sources\.texts: .*needs path"),
        (
            "texts: {format: world, rows: 20000}",
            "texts: [{path: a.jsonl}, {path: ./a.jsonl}]",
            r"sources\.texts: a\.jsonl is named twice",
        ),
        ("texts: {format: world, rows: 20000}", "texts: [{path: a}, {path: b, rows: 0}]", r"sources\.texts\.1\.rows"),
        ("max_new_tokens:", "max_new_token:", r"evaluate\.max_new_token: unknown key; known here: .*max_new_tokens"),
        ("geometry:", "  : :", "not YAML.*; mend it"),
    ],
)
def test_a_wrong_param_is_named_in_one_line(workspace: Path, old: str, new: str, named: str) -> None:
    path = workspace / "params.yaml"
    text = (Path(__file__).parents[1] / "profiles" / "default.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=named) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_a_missing_section_or_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gapbridge profile default"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("[]")
    with pytest.raises(InputError, match="one section a stage"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"seed: caf\xe9")
    with pytest.raises(InputError, match="not YAML: 'utf-8' codec"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        load_params(tmp_path)


def test_params_cannot_change_once_read(workspace: Path) -> None:
    params = load_params(workspace / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1  # type: ignore[misc]
    assert yaml.safe_load((workspace / "params.yaml").read_text())["seed"] == params.seed
