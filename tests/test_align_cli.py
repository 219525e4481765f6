"""`gapbridge align fit` as people type it: a table or one JSON object, and nothing left behind after bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from gapbridge.align import Alignment
from gapbridge.cli import main


@pytest.fixture
def matrices(tmp_path: Path) -> Path:
    """A folder with T.npy (60, 6) and I.npy (50, 6), a gap apart."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "T.npy", random.normal(size=(60, 6)).astype(np.float32) + 1)
    np.save(tmp_path / "I.npy", random.normal(size=(50, 6)).astype(np.float32) - 1)
    return tmp_path


def _fit(folder: Path, *more: str, texts: str = "T.npy", images: str = "I.npy") -> int:
    arguments = ["align", "fit", "--texts", str(folder / texts), "--images", str(folder / images)]
    try:
        main([*arguments, "--out", str(folder / "out"), *more])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_json_is_one_object(matrices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit(matrices, "--holdout", "0", "--json") == 0
    shown = capsys.readouterr()
    metrics = json.loads(shown.out)
    assert (metrics["n_texts"], metrics["n_images"], metrics["width"]) == (60, 50, 6)
    assert metrics["gap_heldout"] is None and metrics["sampling_floor"] is None
    assert metrics["gap_after"] < metrics["gap_before"] / 2
    alignment = Alignment.load(matrices / "out", width=6)
    assert alignment.scale == metrics["scale"]


def test_a_table_for_people(matrices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit(matrices, "--method", "mean_shift") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["method", "anchor"]
    assert any(line.startswith("gap, held-out rows") for line in lines)
    assert lines[-2:] == ["texts not of unit length   60", "images not of unit length  50"]


def test_a_second_fit_takes_the_place_of_the_first(matrices: Path) -> None:
    assert _fit(matrices, "--method", "anchor") == 0
    assert _fit(matrices, "--method", "realign") == 0
    assert Alignment.load(matrices / "out").method == "realign"


@pytest.mark.parametrize(
    "bad",
    [
        "missing",
        "text",
        "vector",
        "integers",
        "archive",
        "nan",
        "width",
        "one_row",
        "objects",
        "holdout",
        "no_rows",
        "negative",
        "header",
        "zip",
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(bad: str, matrices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.load(matrices / "T.npy")
    path = matrices / "B.npy"
    nan = rows.copy()
    nan[3, 2] = np.nan
    contents = {"vector": rows[0], "integers": rows.astype(int), "nan": nan, "width": rows[:, :5], "one_row": rows[:1]}
    contents |= {"no_rows": rows[:0]}
    whole = (matrices / "T.npy").read_bytes()
    damaged = {
        "negative": whole.replace(b"(60, 6)", b"(-6, 6)"),
        "header": whole[:10] + b"((((" + whole[14:],
        "zip": b"PK\x03\x04" + whole,
        "text": b"no numbers\n",
    }
    if bad in contents:
        np.save(path, contents[bad])
    elif bad == "objects":
        np.save(path, np.array([{}, {}]), allow_pickle=True)
    elif bad in damaged:
        path.write_bytes(damaged[bad])
    elif bad == "archive":
        with path.open("wb") as handle:
            np.savez(handle, rows=rows)
    else:
        assert bad in ("missing", "holdout")
    more = ("--holdout", "1.5") if bad == "holdout" else ()
    assert _fit(matrices, "--json", *more, texts="T.npy" if bad == "holdout" else "B.npy") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    *before, last = shown.err.splitlines()
    assert all(line.endswith(" rows read") for line in before)
    assert last.startswith("error: ") and "pickle" not in last
    assert sorted(path.name for path in matrices.iterdir() if path != matrices / "B.npy") == ["I.npy", "T.npy"]


def test_too_many_bad_rows_and_a_folder_without_alignment_say_what_to_do(
    matrices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.load(matrices / "T.npy")
    rows[3, 2] = np.nan
    np.save(matrices / "B.npy", rows)
    assert _fit(matrices, texts="B.npy") == 1
    assert "embed again, or leave them out by --max-bad-fraction (now 0.001)" in capsys.readouterr().err
    assert _fit(matrices, "--max-bad-fraction", "0.1", texts="B.npy") == 0
    (matrices / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["drift", str(matrices / "empty"), "--texts", str(matrices / "T.npy")])
    assert end.value.code == 1
    assert "empty: holds no alignment.json; name a folder that an alignment was fitted into" in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_replaced(matrices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (matrices / "out").mkdir()
    (matrices / "out" / "thesis.txt").write_text("years of work")
    assert _fit(matrices) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (matrices / "out" / "thesis.txt").exists()


def test_a_file_on_the_way_to_the_folder_is_told(matrices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (matrices / "out").write_text("years of work")
    assert _fit(matrices) == _fit(matrices, "--out", str(matrices / "out" / "deep")) == 1
    line = f"error: {matrices / 'out'}: is a file; name a folder"
    assert capsys.readouterr().err.splitlines() == [line, line]
