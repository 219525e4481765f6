"""From vectors brought along to a report, by the shipped profile, without an encoder or a picture."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from transformers import AutoProcessor

from gapbridge import artifacts
from gapbridge.cli import cli
from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.encoders import load_encoder
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.predict import ask, describe
from gapbridge.profiles import overlay, profile_text
from gapbridge.report.gallery import read_gallery
from gapbridge.stages import EMBED_SETS, STAGES

from .direct import run_directly
from .own_vectors import WIDTH, write_all

SMALL = {
    "ingest": {"min_rows": 8},
    "embed": {"shard_rows": 32},
    "pretrain": {"adapter": {"hidden_size": 24, "visual_tokens": 2}, "training": {"batch_size": 16}},
    "instruct": {"training": {"batch_size": 16}},
    "report": {"gallery": 4},
}  # fmt: skip
"""The profile at a size for tests; every other value is its own."""


def write_params(workspace: Path, checkout: Path, **changes: Any) -> None:
    params = overlay(yaml.safe_load(profile_text(checkout, "own-embeddings")), SMALL)
    (workspace / "params.yaml").write_text(yaml.safe_dump(overlay(params, changes)))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every stage has run."""
    workspace = tmp_path_factory.mktemp("own")
    checkout = Path(__file__).resolve().parents[2]
    write_all(workspace / "data/own")
    write_params(workspace, checkout)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setenv("GAPBRIDGE_CACHE", str(workspace / "cache"))
        for name in STAGES:
            for item in EMBED_SETS if name == "embed" else (None,):
                told = run_directly(workspace, name, item)
            artifacts.write_json(workspace / "metrics" / f"{name}.json", told)
    return workspace


def metrics(workspace: Path, name: str) -> Any:
    return artifacts.read_json(workspace / "metrics" / f"{name}.json")


def test_ids_of_img2dataset_are_kept_and_nothing_is_quarantined(chain: Path) -> None:
    texts = read_manifest(chain / "artifacts/ingest/texts")
    assert texts["id"].to_list() == [f"{place:09d}" for place in range(80)]
    assert texts.row(51, named=True)["text"] == "a black thing number 51"
    assert texts.row(51, named=True)["text_vector"] == "data/own/texts/text_emb/text_emb_1.npy#1"
    sets = metrics(chain, "ingest")["sets"]
    assert {name: told["rows"] for name, told in sets.items()} == {
        "texts": 80, "images": 40, "encoder": 0, "llm": 0, "instruct": 40, "probe": 40, "benchmark": 40,
    }  # fmt: skip
    assert not any(told["quarantined"] for told in sets.values())


def test_the_shards_are_the_vectors_as_unit_rows_in_the_manifests_order(chain: Path) -> None:
    shards = Shards.open(chain / "artifacts/embed/texts/texts")
    given = np.concatenate([np.load(chain / f"data/own/texts/text_emb/text_emb_{n}.npy") for n in (0, 1)])
    exact = given.astype(np.float64)
    expected = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16)
    np.testing.assert_array_equal(shards.read(range(80)), expected.astype(np.float32))
    pictures = Shards.open(chain / "artifacts/embed/benchmark/images", shards.fingerprint, WIDTH)
    manifest = read_manifest(chain / "artifacts/ingest/benchmark")
    assert pictures.ids == manifest["id"].to_list()
    place = manifest["id"].to_list().index("12")
    row = np.load(chain / "data/own/benchmark/img_emb/img_emb_0.npy")[12].astype(np.float64)
    np.testing.assert_allclose(pictures.read([place])[0], row / np.linalg.norm(row), atol=1e-3)


def test_the_encoder_is_a_name_and_a_width(chain: Path) -> None:
    about = artifacts.read_json(chain / "artifacts/encoder/encoder.json")
    assert (about["kind"], about["pretrained"], about["width"]) == ("vectors", "openai/clip-vit-large-patch14", WIDTH)
    told = metrics(chain, "encoder")
    assert told["probe_pairs"] == 40 and told["gap"] > 0.3 and 0 < told["retrieval"]["image_to_text"] < 1
    with pytest.raises(ArtifactError, match="no encoder, vectors were brought along"):
        load_encoder(chain / "artifacts/encoder")


def test_the_gap_is_closed_and_measured(chain: Path) -> None:
    told = metrics(chain, "realign")
    assert told["gap_after"] < 0.05 * told["gap_before"]
    geometry = metrics(chain, "geometry")
    assert geometry["trajectory"] is None and geometry["probe"]["gap_after"] < geometry["probe"]["gap_before"]


def test_the_model_takes_vectors_and_says_so_when_it_is_given_a_picture(chain: Path, tmp_path: Path) -> None:
    model = chain / "artifacts/instruct"
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"photo\.png: .* has no image tower, .* of width 16, as a \.npy file"):
        ask(model, tmp_path / "photo.png", "is it red")
    first, *_ = read_gallery(chain / "artifacts/report")
    shown = chain / "artifacts/report" / first.picture
    assert first.picture.endswith(".npy") and first.said
    assert ask(model, shown, first.question).startswith(first.said)  # which `evaluate.max_new_tokens` may have cut
    rows = np.load(chain / "data/own/benchmark/img_emb/img_emb_0.npy")
    np.save(tmp_path / "one.npy", rows[:1].astype(np.float32))
    assert len(describe(model, [tmp_path / "one.npy", shown])) == 2
    processor = AutoProcessor.from_pretrained(model)
    with pytest.raises(ValueError, match="this model has no image tower: it takes vectors"):
        processor.image_processor([Image.new("RGB", (8, 8))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones(5, np.float32), "a vector of width 5, the model takes 16"),
        (np.zeros(16, np.float32), "is zero or holds NaN"),
        (np.ones((2, 16), np.float32), r"holds \(2, 16\), not one vector"),
        (np.array([{}], dtype=object), "no .npy file"),
        (np.arange(16), r"holds \(16,\), not one vector of numbers"),
    ],
)
def test_what_is_no_vector_for_the_model_is_one_line(
    content: np.ndarray, message: str, chain: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", content, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        ask(chain / "artifacts/instruct", tmp_path / "v.npy", "is it red")


def test_it_is_exported_and_says_that_it_cannot_look_at_a_folder(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(chain)
    done = CliRunner().invoke(cli, ["export", str(tmp_path / "exported")])
    assert done.exit_code == 0 and (tmp_path / "exported/config.json").exists()
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    told = CliRunner().invoke(cli, ["predict", str(tmp_path), "--out", str(tmp_path / "said.jsonl")]).exception
    assert isinstance(told, InputError) and "has no image tower and reads vectors alone" in str(told)


def test_the_report_needs_no_picture(chain: Path) -> None:
    page = (chain / "artifacts/report/index.html").read_text()
    assert "<img" not in page and page.count("The vector alone was given") == len(
        read_gallery(chain / "artifacts/report")
    )
    card = (chain / "artifacts/report/model_card.md").read_text()
    assert "no image tower: give it vectors of openai/clip-vit-large-patch14, of width 16" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["data/own/llm"]


def test_vectors_that_changed_since_ingest_are_refused(chain: Path) -> None:
    path = chain / "data/own/images/img_emb/img_emb_1.npy"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-2] + b"\0\0")
        with pytest.raises(ArtifactError, match=r"img_emb_1\.npy: changed since ingest; run `gapbridge ingest` again"):
            run_directly(chain, "embed", "images")
    finally:
        path.write_bytes(whole)


@pytest.fixture
def own(workspace: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A workspace with the files alone; called with changes of the params."""
    write_all(workspace / "data/own", texts=12, pictures=12)
    monkeypatch.chdir(workspace)

    def change(**changes: Any) -> None:
        write_params(workspace, checkout, **changes)

    change()
    return change


def test_vectors_of_another_width_in_one_set_stop_ingest(own: Callable[..., None], workspace: Path) -> None:
    np.save(workspace / "data/own/instruct/img_emb/img_emb_0.npy", np.ones((12, 8), np.float16))
    with pytest.raises(InputError, match=r"sources\.instruct: vectors of width 8, those of sources\.texts 16"):
        run_directly(workspace, "ingest")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (np.zeros(WIDTH), "the vector is zero"),
        (np.full(WIDTH, np.nan), "the vector holds NaN or infinity"),
        (None, "no vector of this row in data/own/instruct"),
    ],
)
def test_a_row_without_a_vector_of_use_is_quarantined(
    row: np.ndarray | None, reason: str, own: Callable[..., None], workspace: Path
) -> None:
    path = workspace / "data/own/instruct/img_emb/img_emb_0.npy"
    rows = np.load(path)
    if row is None:
        table = workspace / "data/own/instruct/metadata/metadata_0.parquet"
        names = polars.read_parquet(table)
        names.with_columns(image_path=polars.Series([*names["image_path"][:3], "x", *names["image_path"][4:]])
                           ).write_parquet(table)  # fmt: skip
    else:
        rows[3] = row
        np.save(path, rows)
    own(ingest={"max_bad_fraction": 0.2})
    told = run_directly(workspace, "ingest")["sets"]["instruct"]
    assert (told["rows"], told["reasons"]) == (11, {reason: 1})


def test_vectors_without_names_go_by_the_rows_places(own: Callable[..., None], workspace: Path) -> None:
    matrix = np.concatenate([np.load(path) for path in sorted((workspace / "data/own/texts/text_emb").iterdir())])
    np.save(workspace / "data/own/t.npy", matrix)
    lines = [f"text {number}\n" for number in range(12)]
    (workspace / "data/own/t.txt").write_text("".join(lines))
    own(sources={"texts": {"format": "lines", "path": "data/own/t.txt", "vectors": "data/own/t.npy"}})
    run_directly(workspace, "ingest")
    found = read_manifest(workspace / "artifacts/ingest/texts")
    assert found.row(7, named=True)["text"] == "text 7" and found["text_vector"][7] == "data/own/t.npy#7"
    (workspace / "data/own/t.txt").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"t\.npy has 12 vectors without names, data/own/t\.txt has 11 rows"):
        run_directly(workspace, "ingest")


def test_the_same_vector_in_training_and_benchmark_stops_ingest(own: Callable[..., None], workspace: Path) -> None:
    trained = np.load(workspace / "data/own/images/img_emb/img_emb_0.npy")
    path = workspace / "data/own/benchmark/img_emb/img_emb_0.npy"
    asked = np.load(path)
    asked[5] = trained[2]
    np.save(path, asked)
    with pytest.raises(InputError, match=r"sources\.images and sources\.benchmark share 1 picture file"):
        run_directly(workspace, "ingest")


def test_one_folder_cannot_give_both_unpaired_sides(own: Callable[..., None], workspace: Path) -> None:
    probe = {"format": "embeddings", "path": "data/own/probe"}
    own(sources={"texts": probe, "images": probe})
    with pytest.raises(InputError, match=r"sources\.texts and sources\.images share 12 groups"):
        run_directly(workspace, "ingest")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"pretrained": None}}, "sources.texts brings vectors along: set encoder."),
        ({"encoder": {"pretrained": "vectors: "}}, "encoder.pretrained: say what made the vectors, vectors:NAME"),
        ({"sources": {"instruct": {"format": "llava", "path": "i.json"}}},
         "params.yaml: encoder.pretrained is vectors:openai/clip-vit-large-patch14: sources.instruct has none"),
        ({"sources": {"llm": {"format": "embeddings", "path": "data/own/texts"}}}, "sources.llm: takes no vectors"),
        ({"sources": {"texts": {"format": "embeddings", "path": "a", "vectors": "b"}}}, "leave vectors out"),
    ],
)  # fmt: skip
def test_params_that_mix_vectors_and_an_encoder_are_refused(
    changes: dict[str, Any], message: str, own: Callable[..., None], workspace: Path
) -> None:
    own(**changes)
    with pytest.raises(InputError) as caught:
        run_directly(workspace, "ingest")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_plan_counts_vectors_and_names_what_is_missing(own: Callable[..., None], workspace: Path) -> None:
    told = CliRunner().invoke(cli, ["plan"]).stdout
    assert "encoder    none, vectors are brought along, width 16" in told and "nothing is missing" in told
    assert re.search(r"^texts +embeddings +\d+ .* 12 +12  data/own/texts$", told, re.M)
    shutil.rmtree(workspace / "data/own/benchmark")
    done = CliRunner().invoke(cli, ["plan"])
    assert "missing    ./data/own/benchmark\n" in done.stdout and done.exit_code == 3


def test_a_folder_of_vectors_without_its_format_is_told(user_files: Path, workspace: Path, set_params: Any) -> None:
    (user_files / "cr/img_emb").mkdir(parents=True)
    np.save(user_files / "cr/img_emb/img_emb_0.npy", np.ones((2, 4), np.float16))
    set_params(sources={"images": {"path": "data/cr"}})
    with pytest.raises(
        InputError, match=r"sources\.images\.format: data/cr holds vectors; say embeddings, and vectors:"
    ):
        run_directly(workspace, "ingest")
