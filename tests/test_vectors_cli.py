"""`gapbridge align apply`, `drift` and `gap` as people type them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from PIL import Image

from gapbridge.align import Alignment
from gapbridge.cli import main
from gapbridge.embeddings.shards import write_shards


def _cloud(rows: int, seed: int, mean: float, width: int = 16) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, width)) * 0.4
    made[:, 0] += mean
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """T.npy (900, 16), I.npy (700, 16), N.npy: more texts of the same kind, and a fitted alignment."""
    np.save(tmp_path / "T.npy", _cloud(900, 0, 1))
    np.save(tmp_path / "I.npy", _cloud(700, 1, -1))
    np.save(tmp_path / "N.npy", _cloud(900, 2, 1))
    np.save(tmp_path / "M.npy", _cloud(900, 3, 0.2))
    assert _run(tmp_path, "align fit --texts T.npy --images I.npy --out fitted --json") == 0
    return tmp_path


_FOLDERS = ("fitted", "out", "retrieval")


def _run(folder: Path, line: str) -> int:
    words = [str(folder / word) if word.endswith((".npy", ".d")) or word in _FOLDERS else word for word in line.split()]
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


@pytest.mark.parametrize(("flag", "dtype"), [("", np.float16), ("--fp32", np.float32)])
def test_apply_writes_clip_retrievals_layout(
    flag: str, dtype: type, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _run(folder, f"align apply fitted --texts T.npy --out out --json {flag}") == 0
    assert _figures(capsys)["n_texts"] == 900
    rows = np.load(folder / "out/text_emb/text_emb_0.npy")
    assert rows.dtype == dtype and rows.shape == (900, 16)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=2e-3)
    gap = np.linalg.norm(rows.mean(axis=0, dtype=np.float64) - np.load(folder / "I.npy").mean(axis=0, dtype=np.float64))
    assert gap < 0.05
    ids = polars.read_parquet(folder / "out/metadata/metadata_0.parquet")["id"]
    assert ids.to_list() == [str(row) for row in range(900)]
    assert _run(folder, "align apply fitted --texts T.npy --out out") == 0  # takes the place of the first


def test_apply_keeps_names_order_and_parts_and_leaves_bad_rows_out(folder: Path) -> None:
    rows = _cloud(40, 5, 1)
    rows[3], rows[25] = np.nan, 0
    for number, cut in ((0, slice(0, 20)), (1, slice(20, 40))):
        for kind in ("text_emb", "metadata"):
            (folder / "retrieval" / kind).mkdir(parents=True, exist_ok=True)
        np.save(folder / "retrieval/text_emb" / f"text_emb_{number}.npy", rows[cut])
        names = [f"name {row}" for row in range(40)[cut]]
        polars.DataFrame({"image_path": names}).write_parquet(
            folder / "retrieval/metadata" / f"metadata_{number}.parquet"
        )
    assert _run(folder, "align apply fitted --texts retrieval --out out") == 1
    assert not (folder / "out").exists()
    assert _run(folder, "align apply fitted --texts retrieval --out out --max-bad-fraction 0.1") == 0
    tables = [polars.read_parquet(folder / f"out/metadata/metadata_{number}.parquet")["id"] for number in (0, 1)]
    assert [*tables[0], *tables[1]] == [f"name {row}" for row in range(40) if row not in (3, 25)]
    assert [len(np.load(folder / f"out/text_emb/text_emb_{number}.npy")) for number in (0, 1)] == [19, 19]
    quarantine = polars.read_parquet(folder / "out/quarantine.parquet")
    assert quarantine.rows() == [("texts", 3, "holds NaN or infinity"), ("texts", 25, "is zero")]


def test_bad_rows_are_listed_beside_the_alignment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.load(folder / "T.npy")
    rows[7, 2] = np.inf
    np.save(folder / "B.npy", rows)
    capsys.readouterr()
    assert _run(folder, "align fit --texts B.npy --images I.npy --out out --max-bad-fraction 0.002") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["bad", "texts", "left", "out", "1"]
    assert polars.read_parquet(folder / "out/quarantine.parquet")["row"].to_list() == [7]
    assert _run(folder, "align fit --texts B.npy --images I.npy --out other.d --max-bad-fraction 0") == 1
    assert "texts row 7: holds NaN or infinity" in capsys.readouterr().err
    assert not (folder / "other.d").exists()


def test_drift_says_whether_to_fit_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _run(folder, "drift fitted --texts N.npy --images I.npy") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "fits: no need to recalibrate"
    assert _run(folder, "drift fitted --texts M.npy") == 3
    assert "recalibrate: " in capsys.readouterr().out.splitlines()[-1]
    assert _run(folder, "drift fitted --texts M.npy --json") == 3
    assert _figures(capsys)["recalibrate"] is True
    np.save(folder / "W.npy", _cloud(90, 0, 1)[:, :5])
    assert _run(folder, "drift fitted --texts W.npy") == 1
    assert capsys.readouterr().err.startswith("error: alignment: its width is 16")


def test_gap_writes_figures_pictures_and_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _run(folder, "gap --texts T.npy --images I.npy --domain moved M.npy I.npy --rows 500 --out out --json") == 0
    figures = _figures(capsys)
    assert figures == json.loads((folder / "out/gap.json").read_text())
    assert set(figures["methods"]) == {"none", "anchor", "anchor_trace", "c3", "blockwise", "realign"}
    assert figures["domains"]["these"]["moved"] > 1.1 * figures["domains"]["moved"]["moved"]
    assert figures["pairs"] is None and figures["sample"] == {"texts": 500, "images": 500, "paired": False}
    for name in ("gap", "spectra", "cosines", "neighbours", "methods", "sizes", "domains"):
        with Image.open(folder / "out" / f"{name}.png") as picture:
            assert min(picture.size) > 300
    page = (folder / "out/index.html").read_text()
    assert page.count("data:image/png;base64,") == 7 and "<script" not in page and "http" not in page
    assert figures["headline"] in page and figures["advice"] in page


def test_pairs_are_measured_where_they_are_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = np.load(folder / "T.npy")
    images = texts.astype(np.float32)
    images[:, 0] -= 1.5
    np.save(folder / "P.npy", images)
    capsys.readouterr()
    assert _run(folder, "gap --texts T.npy --images P.npy --paired --rows 300 --out out --json") == 0
    figures = _figures(capsys)
    assert figures["pairs"]["rows"] == 300 and figures["pairs"]["identity_error"] < 1e-12
    assert figures["methods"]["realign"]["paired_cosine"] > figures["methods"]["none"]["paired_cosine"] + 0.1
    assert _run(folder, "gap --texts T.npy --images I.npy --paired --out out") == 1
    assert "900 texts and 700 images" in capsys.readouterr().err


def test_captions_beside_the_vectors_are_told_apart_by_their_length(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("text_emb", "metadata"):
        (folder / "retrieval" / kind).mkdir(parents=True)
    np.save(folder / "retrieval/text_emb/text_emb_0.npy", np.load(folder / "T.npy"))
    captions = ["word " * (2 if row % 3 else 20) for row in range(900)]
    polars.DataFrame({"caption": captions}).write_parquet(folder / "retrieval/metadata/metadata_0.parquet")
    capsys.readouterr()
    assert _run(folder, "gap --texts retrieval --images I.npy --rows 300 --out out --json") == 0
    lengths = _figures(capsys)["lengths"]
    assert lengths["short"]["words"] == 2 and lengths["long"]["words"] == 20
    assert lengths["short"]["rows"] + lengths["long"]["rows"] == 300
    assert (folder / "out/lengths.png").exists()


def test_too_few_rows_for_a_diagnosis(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "F.npy", _cloud(20, 0, 1))
    assert _run(folder, "gap --texts F.npy --images I.npy --out out") == 1
    assert "needs 40 or more a side" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_encoders_are_told_apart_where_both_are_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shards(name: str, encoder: str, rows: str) -> None:
        vectors = np.load(folder / rows)
        write_shards(folder / name, [([str(row) for row in range(len(vectors))], vectors)], encoder, 500)

    shards("t.d", "a", "T.npy")
    shards("i.d", "b", "I.npy")
    assert _run(folder, "align fit --texts t.d --images i.d --out out") == 1
    assert "embed with one" in capsys.readouterr().err
    shards("i.d", "a", "I.npy")
    assert _run(folder, "align fit --texts T.npy --images i.d --out out") == 0
    assert Alignment.load(folder / "out").fingerprint == "a"
    shards("o.d", "b", "N.npy")
    for command in ("align apply out --texts o.d --out new.d", "drift out --texts o.d"):
        assert _run(folder, command) == 1
        assert "of encoder a, but the vectors come from b" in capsys.readouterr().err
    assert _run(folder, "align apply out --texts T.npy --out new.d") == 0
    assert _run(folder, "drift fitted --texts t.d") == 0  # fitted on bare matrices: nothing says that it is another


@pytest.mark.parametrize(
    ("domains", "message"),
    [("--domain these M.npy I.npy", "name the other set otherwise"),
     ("--domain a M.npy I.npy --domain a N.npy I.npy", "a name is given twice")],
)  # fmt: skip
def test_domains_have_names_of_their_own(
    domains: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folder, f"gap --texts T.npy --images I.npy {domains} --out out") == 1
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_diagnosis_leaves_bad_rows_out_and_lists_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.load(folder / "T.npy")
    rows[[3, 400]] = np.nan
    np.save(folder / "B.npy", rows)
    assert _run(folder, "gap --texts B.npy --images I.npy --out out") == 1
    assert "texts row 3: holds NaN or infinity, and 1 more of 900" in capsys.readouterr().err
    assert _run(folder, "gap --texts B.npy --images I.npy --out out --max-bad-fraction 0.01 --json") == 0
    assert _figures(capsys)["sample"]["texts"] == 898
    assert polars.read_parquet(folder / "out/quarantine.parquet")["row"].to_list() == [3, 400]
