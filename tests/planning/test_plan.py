"""`gapbridge plan` on files of one's own and on every profile: right numbers, every missing file, nothing written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from gapbridge.cli import cli
from gapbridge.errors import InputError
from gapbridge.params import check_params
from gapbridge.planning.prices import data_costs
from gapbridge.profiles import names, overlay, profile_params, profile_text

from ..inputs import ROWS, write_inputs

ROOT = Path(__file__).resolve().parents[2]
Planner = Callable[..., Result]


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def planned(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Writes inputs for a profile with changes, plans them, and sees that nothing else was written."""
    monkeypatch.chdir(workspace)

    def run(
        name: str, *options: str, changes: dict[str, Any] | None = None, spoil: Callable[[], None] | None = None
    ) -> Result:
        values = overlay(yaml.safe_load(profile_text(ROOT, name)), changes or {})
        (workspace / "params.yaml").write_text(yaml.safe_dump(values))
        write_inputs(workspace, check_params(values, workspace / "params.yaml"))
        if spoil:
            spoil()
        before = tree(workspace)
        done = CliRunner().invoke(cli, ["plan", *options])
        assert tree(workspace) == before
        return done

    return run


def test_files_of_ones_own_are_counted_and_their_training_is_worked_out(planned: Planner) -> None:
    changes = {"pretrain": {"training": {"steps": None, "batch_size": 5}}}
    done = planned("cpu-small", "--json", "--gpu", "rtx4090", changes=changes)
    assert done.exit_code == 0, done.stdout
    plan = json.loads(done.stdout)
    rows = {name: [(one["format"], one["rows"], one["counted"]) for one in plan["sets"][name]] for name in plan["sets"]}
    assert rows == {
        "texts": [("jsonl", ROWS, True)],
        "images": [("folder", ROWS, True)],
        "encoder": [],
        "llm": [],
        "instruct": [("llava", ROWS, True)],
        "probe": [("llava", ROWS, True)],
        "benchmark": [("pope", ROWS, True)],
    }
    assert plan["encoder"]["width"] == 16
    pretrain = plan["training"]["pretrain"]
    heldout = ROWS // 10
    assert (pretrain["steps"], pretrain["samples"]) == (-(-(ROWS - heldout) // 5), ROWS - heldout)
    assert pretrain["tokens_exact"] and pretrain["tokens"] == round(pretrain["samples"] * pretrain["mean_tokens"])
    # 4 visual tokens, the template's markers, the instruction, and the text
    assert 4 < pretrain["mean_tokens"] <= pretrain["longest_tokens"] < 80
    assert plan["training"]["instruct"]["steps"] == 100
    # texts, images, instruct, benchmark, and both sides of the probe: 16 numbers of 2 bytes each
    assert plan["disk_bytes"]["shards"] == 6 * ROWS * 16 * 2
    memory = pretrain["memory"]
    assert memory["peak"] == sum(
        memory[part] for part in ("weights", "gradients", "optimiser", "activations", "logits", "temporaries")
    )
    # AdamW's two moments in fp32, of the adapter alone; a checkpoint holds the weights beside them
    assert memory["optimiser"] == 8 * memory["trained_parameters"]
    frozen = plan["training"]["instruct"]["memory"]
    assert plan["disk_bytes"]["checkpoint"] == 12 * frozen["trained_parameters"]
    assert frozen["parameters"] > memory["parameters"], "the vision tower lies in the final model"
    assert all(hours > 0 for hours in plan["gpu_hours"].values())
    assert plan["data_cost"]["rows"] == ROWS
    assert plan["missing"] == plan["problems"] == []


def test_more_gpus_share_a_batch(planned: Planner) -> None:
    changes = {"instruct": {"training": {"batch_size": 64}}}
    one = json.loads(planned("cpu-small", "--json", changes=changes).stdout)["training"]["instruct"]["memory"]
    done = CliRunner().invoke(cli, ["plan", "--json", "--gpus", "8"])
    eight = json.loads(done.stdout)["training"]["instruct"]["memory"]
    assert eight["activations"] < one["activations"] / 4 and eight["weights"] == one["weights"]


def test_people_are_told_the_same(planned: Planner) -> None:
    said = planned("cpu-small").stdout
    for expected in (
        "texts      jsonl                  1",
        "encoder    models/clip-vit-base-patch32:",
        "llm        models/SmolLM2-135M-Instruct:",
        "fits (weights",
        "35% of 989 TFLOP/s",
        "paired 4.8e-05, unpaired 1.8e-05, synthetic 0.00019 for 48 rows",
        "P_out = 4 P_in, which are assumptions",
        "nothing is missing",
    ):
        assert expected in said


@pytest.mark.parametrize("name", ["paper-llama3-8b", "single-24gb-gpu"])
def test_the_formats_of_the_big_profiles_are_read(planned: Planner, name: str) -> None:
    done = planned(name, "--json")
    plan = json.loads(done.stdout)
    assert plan["missing"] == plan["problems"] == [] and done.exit_code == 0
    if name == "paper-llama3-8b":  # its instructions have a row without a picture, as the real ones do
        (remark,) = plan["remarks"]
        assert '"image" is missing (1 bad rows among the first' in remark
        assert plan["encoder"]["width"] == 16 and len(plan["encoder"]["checkpoints"]) == 2
        assert plan["sets"]["texts"][0]["files"] == 1 and plan["sets"]["instruct"][0]["rows"] >= ROWS
    else:
        assert plan["sets"]["images"][0]["rows"] == ROWS
    assert all(one["rows"] for one in plan["sets"]["benchmark"])


@pytest.mark.parametrize("name", names(ROOT))
def test_every_profile_is_planned_and_says_what_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    monkeypatch.chdir(tmp_path)
    params = profile_params(tmp_path, name)
    done = CliRunner().invoke(cli, ["plan", "--profile", name, "--json"])
    missing = json.loads(done.stdout)["missing"]
    expected = {
        f"{params.sources.root}/{path}"
        for set_name in ("texts", "images", "encoder", "llm", "instruct", "probe", "benchmark")
        for source in params.sources.of(set_name)
        for path in (source.path, source.images)
        if path is not None
    }
    if params.llm.pretrained:
        expected.add(f"{params.llm.pretrained}/ (the folder of a model)")
    assert expected <= set(missing)
    assert done.exit_code == (3 if missing else 0)
    assert [path.name for path in tmp_path.iterdir()] == ["profiles"]


def test_what_would_stop_ingest_is_told(planned: Planner, workspace: Path) -> None:
    def spoil() -> None:
        (workspace / "data/instruct/004.jpg").unlink()
        lines = (workspace / "data/texts.jsonl").read_text().splitlines()
        (workspace / "data/texts.jsonl").write_text("\n".join(["{}", *lines]))
        (workspace / "models/SmolLM2-135M-Instruct/model.safetensors").unlink()

    done = planned("cpu-small", spoil=spoil)
    assert done.exit_code == 3
    for expected in (
        'look at    texts.jsonl line 1: "text" is missing (1 bad rows among the first 49)',
        "look at    instruct.json: instruct/004.jpg is missing (1 pictures among the first 48)",
        "missing    models/SmolLM2-135M-Instruct/*.safetensors",
    ):
        assert expected in done.stdout


def test_a_format_that_does_not_fit_and_a_model_without_a_template_are_one_line(
    planned: Planner, workspace: Path
) -> None:
    def spoil() -> None:
        folder = workspace / "models/SmolLM2-135M-Instruct"
        (folder / "chat_template.jinja").unlink()

        (workspace / "data/probe.json").write_text("a line of words")

    done = planned("cpu-small", spoil=spoil)
    assert done.exit_code == 3
    assert "look at    sources.probe.format: lines gives no pair records; name another format" in done.stdout
    assert "SmolLM2-135M-Instruct: the language model's tokenizer has no chat template" in done.stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "never-heard-of"}, "describes no model"),
        ({"model_type": "whisper"}, "no language model can be made of it"),
        ({"model_type": "clip"}, "no language model can be made of it"),
        ({"model_type": "llama", "num_attention_heads": 0}, "describes no model"),
        ({"model_type": "qwen2", "hidden_size": 7, "num_attention_heads": 3}, "no language model can be made of it"),
    ],
)
def test_settings_of_no_model_are_one_line(
    planned: Planner, workspace: Path, settings: dict[str, Any], said: str
) -> None:
    def spoil() -> None:
        (workspace / "models/SmolLM2-135M-Instruct/config.json").write_text(json.dumps(settings))

    done = planned("cpu-small", spoil=spoil)
    assert isinstance(done.exception, InputError)
    assert f"SmolLM2-135M-Instruct/config.json: {said}" in str(done.exception)


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_a_part_without_a_model_and_rows_to_learn_from_is_told(planned: Planner, part: str) -> None:
    done = planned("cpu-small", changes={part: {"pretrained": None}})
    assert done.exit_code == 3
    assert (
        f"look at    sources.{part}: null, as is {part}.pretrained; name rows to learn from, or a model" in done.stdout
    )


def test_the_papers_ratios() -> None:
    assert data_costs(1_000_000, 50)["paper"] == {"paired": 1.0, "unpaired": 0.37, "synthetic": 3.98}
    assert data_costs(2_000_000, 50)["paper"]["unpaired"] == 0.74
    by_tokens = data_costs(10, 50)["by_tokens"]
    # read 50 and write 50 at four times the price, beside 576 more read
    assert by_tokens == {"paired": 1.0, "unpaired": 250 / 826}
