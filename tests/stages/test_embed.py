"""The embed stage: which vectors each set gets, in the manifest's order, with an encoder that is made up."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest, write_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError
from tests.embeddings.fakes import FakeEncoder
from tests.stages.direct import run_directly

COLOURS = ("red", "green", "blue", "green")


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The encoder that every stage of this test loads."""
    encoder = FakeEncoder()
    monkeypatch.setattr("gapbridge.stages.embed.load_encoder", lambda folder, **settings: encoder)
    return encoder


@pytest.fixture
def prepared(workspace: Path) -> Path:
    """A workspace with an encoder folder and four pictures under `data/`, two of them the same file."""
    (workspace / "artifacts" / "encoder").mkdir(parents=True)
    (workspace / "data").mkdir()
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (4, 4), colour).save(workspace / "data" / f"{number}.png")
    return workspace


def _pictured(workspace: Path, number: int, **fields: Any) -> dict[str, Any]:
    path = workspace / "data" / f"{number}.png"
    picture = {"image": f"root:data/{number}.png", "sha256": artifacts.file_digest(path), "width": 4, "height": 4}
    return {"id": f"r{number}", "group_id": f"g{number}", "source": "test", "caption": None, **picture, **fields}


def _write(workspace: Path, name: str, kind: str, records: list[dict[str, Any]]) -> None:
    write_manifest(workspace / "artifacts" / "ingest" / name, kind, records, [])


def test_texts(encoder: FakeEncoder, prepared: Path) -> None:
    texts = ["a ring", "a very long description", "a ring"]
    records = [{"id": f"t{i}", "group_id": f"g{i % 2}", "source": "test", "text": t} for i, t in enumerate(texts)]
    _write(prepared, "texts", "text", records)
    metrics = run_directly(prepared, "embed", "texts")
    assert metrics["texts"] == {"rows": 3, "distinct": 2, "truncated": 1}
    assert (metrics["rows"], metrics["width"], metrics["fingerprint"]) == (3, 8, "fake")
    out = prepared / "artifacts" / "embed" / "texts"
    assert [path.name for path in out.iterdir()] == ["texts"]
    shards = Shards.open(out / "texts", "fake")
    assert (shards.ids, shards.groups) == (["t0", "t1", "t2"], ["g0", "g1", "g0"])
    np.testing.assert_array_equal(shards.read([1])[0], encoder.vector(texts[1].encode()).astype(np.float16))


def test_images_are_encoded_once_a_file(encoder: FakeEncoder, prepared: Path) -> None:
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(4)])
    metrics = run_directly(prepared, "embed", "images")
    assert metrics["images"] == {"rows": 4, "distinct": 3}
    assert encoder.batches == [3]
    rows = Shards.open(prepared / "artifacts/embed/images/images").read(range(4))
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (4, 4), colour).tobytes()
        np.testing.assert_array_equal(rows[number], encoder.vector(picture).astype(np.float16))


def test_probe_has_both_sides_in_one_order(encoder: FakeEncoder, prepared: Path) -> None:
    pairs = [_pictured(prepared, i, text=f"it is {COLOURS[i]}", objects=1) for i in (2, 0, 1)]
    _write(prepared, "probe", "pair", pairs)
    run_directly(prepared, "embed", "probe")
    out = prepared / "artifacts/embed/probe"
    images, texts = Shards.open(out / "images"), Shards.open(out / "texts")
    assert images.ids == texts.ids == read_manifest(prepared / "artifacts/ingest/probe")["id"].to_list()
    np.testing.assert_array_equal(texts.read([2])[0], encoder.vector(b"it is blue").astype(np.float16))


@pytest.mark.parametrize(("contexts", "folders"), [(["x", "y"], ["images", "texts"]), (["x", None], ["images"])])
def test_instruct_has_texts_where_every_context_is_known(
    contexts: list[str | None], folders: list[str], encoder: FakeEncoder, prepared: Path
) -> None:
    turns = [{"question": "what?", "answer": "that"}]
    records = [_pictured(prepared, i, context=context, turns=turns) for i, context in enumerate(contexts)]
    _write(prepared, "instruct", "dialogue", records)
    run_directly(prepared, "embed", "instruct")
    assert sorted(path.name for path in (prepared / "artifacts/embed/instruct").iterdir()) == folders


def test_benchmark_has_pictures_alone(encoder: FakeEncoder, prepared: Path) -> None:
    asked = {"benchmark": "color", "question": "what color?", "answer": "red", "subset": None, "novel": False}
    _write(prepared, "benchmark", "question", [_pictured(prepared, i, **asked) for i in range(2)])
    run_directly(prepared, "embed", "benchmark")
    assert [path.name for path in (prepared / "artifacts/embed/benchmark").iterdir()] == ["images"]


def test_figures_and_bytes_do_not_depend_on_the_cache(encoder: FakeEncoder, prepared: Path) -> None:
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(4)])
    first = run_directly(prepared, "embed", "images"), artifacts.dvc_digest(prepared / "artifacts/embed/images")
    second = run_directly(prepared, "embed", "images"), artifacts.dvc_digest(prepared / "artifacts/embed/images")
    assert first == second
    assert encoder.batches == [3]


def test_no_picture_is_opened_or_encoded_twice_whatever_asks_for_it(
    encoder: FakeEncoder, prepared: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sets of one workspace, and another workspace with the same files: one encoder, one cache."""
    opened: list[str] = []
    load = Pictures.load

    def counted(self: Pictures, locator: str, sha256: str | None = None) -> Image.Image:
        opened.append(locator)
        return load(self, locator, sha256)

    monkeypatch.setattr(Pictures, "load", counted)
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in (0, 1)])
    _write(prepared, "probe", "pair", [_pictured(prepared, i, text="it is", objects=1) for i in range(4)])
    run_directly(prepared, "embed", "images")
    run_directly(prepared, "embed", "probe")
    elsewhere = shutil.copytree(prepared, tmp_path_factory.mktemp("other") / "workspace")
    shutil.rmtree(elsewhere / "artifacts/embed")
    run_directly(elsewhere, "embed", "images")
    run_directly(elsewhere, "embed", "probe")
    assert sorted(opened) == [f"root:data/{i}.png" for i in range(3)]
    assert encoder.batches == [2, 1, 1]  # two pictures, the third one, and the text
    for name in ("images", "probe"):
        places = [workspace / "artifacts/embed" / name for workspace in (prepared, elsewhere)]
        assert artifacts.dvc_digest(places[0]) == artifacts.dvc_digest(places[1])


def test_a_picture_that_has_become_unreadable_is_one_line(encoder: FakeEncoder, prepared: Path) -> None:
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(4)])
    (prepared / "data" / "2.png").unlink()
    with pytest.raises(ArtifactError, match=r"^root:data/2\.png: cannot be read; run `gapbridge ingest` again$"):
        run_directly(prepared, "embed", "images")
    assert not (prepared / "artifacts/embed/images").exists()


def test_sides_of_two_encoders_do_not_go_together(
    encoder: FakeEncoder, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(prepared, "texts", "text", [{"id": "t", "group_id": "g", "source": "test", "text": "a ring"}])
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(2)])
    run_directly(prepared, "embed", "texts")
    monkeypatch.setattr(encoder, "fingerprint", "newer")
    run_directly(prepared, "embed", "images")
    with pytest.raises(ArtifactError, match=r"embed/images/images: of encoder newer, expected fake; embed again$"):
        run_directly(prepared, "realign")


def test_a_picture_that_changed_since_ingest_reaches_neither_shards_nor_cache(
    encoder: FakeEncoder, prepared: Path
) -> None:
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(2)])
    Image.new("RGB", (4, 4), "white").save(prepared / "data" / "1.png")
    with pytest.raises(ArtifactError, match=r"root:data/1\.png: changed since ingest"):
        run_directly(prepared, "embed", "images")
    assert encoder.batches == []


def test_nothing_is_left_when_the_encoder_gives_nan(
    encoder: FakeEncoder, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(prepared, "images", "image", [_pictured(prepared, i) for i in range(2)])
    monkeypatch.setattr(encoder, "vector", lambda content: np.full(8, np.nan))
    with pytest.raises(ArtifactError, match="NaN"):
        run_directly(prepared, "embed", "images")
    assert not (prepared / "artifacts/embed/images").exists()
