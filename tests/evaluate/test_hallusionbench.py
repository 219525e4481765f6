"""HallusionBench on a small copy: accuracy over questions, over question pairs, over figures."""

import logging
from pathlib import Path

import pytest

from .released import figures, picture, read, write_table

FILE = "HallusionBench/data/image-00000-of-00001.parquet"


def _row(category: str, figure: int, question: int, answer: str, **other: object) -> dict[str, object]:
    row = {"category": category, "subcategory": "chart", "visual_input": "1", "set_id": "0", "figure_id": str(figure)}
    asked = {"question_id": str(question), "question": f"Is it so, {question}?", "gt_answer": answer}
    return {**row, **asked, "image": picture(figure), **other}


def _write(root: Path) -> None:
    """Visual-dependent figures 0 and 1 with the same two questions each, a supplementary figure 1 with one."""
    rows = [_row("VD", 0, 0, "1"), _row("VD", 0, 1, "0"), _row("VD", 1, 0, "0"), _row("VD", 1, 1, "0")]
    write_table(root / FILE, [*rows, _row("VS", 1, 0, "1")])


def test_questions_pairs_and_figures(tmp_path: Path) -> None:
    _write(tmp_path)
    found = read("hallusionbench", tmp_path, "HallusionBench")
    assert found.bad == []
    assert found.items[0].question == "Is it so, 0? Please answer yes or no."
    said = {
        "VD_chart_0_0_0": "Yes, it is.",  # right
        "VD_chart_0_0_1": "No.",  # right
        "VD_chart_0_1_0": "Yes",  # wrong
        "VD_chart_0_1_1": "no",  # right
        "VS_chart_0_1_0": "Perhaps.",  # unparsed
    }
    scores = figures("hallusionbench", found.items, said)
    assert scores["score"] == scores["aAcc"] == 0.6
    # pairs: VD question 0 (right, wrong), VD question 1 (right, right), VS question 0 (unparsed)
    assert scores["qAcc"] == pytest.approx(1 / 3)
    # figures: VD figure 0 (right, right), VD figure 1 (wrong, right), VS figure 1 (unparsed)
    assert scores["fAcc"] == pytest.approx(1 / 3)
    assert (scores["unparsed"], scores["protocol"]) == (1, "hallusionbench-rule/1")
    assert scores["majority"] == 0.6
    part = scores["subsets"]["VD"]
    assert (part["aAcc"], part["qAcc"], part["fAcc"]) == (0.75, 0.5, 0.5)


def test_questions_without_a_picture_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [_row("VS", 1, 0, "1"), _row("VS", 0, 0, "1", visual_input="0", image=None)]
    write_table(tmp_path / FILE, rows)
    write_table(tmp_path / "HallusionBench/data/non_image-00000-of-00001.parquet", rows[1:])
    with caplog.at_level(logging.INFO):
        found = read("hallusionbench", tmp_path, "HallusionBench")
    assert (len(found.items), found.bad) == (1, [])
    assert "1 questions left out" in caplog.text


def test_bad_rows(tmp_path: Path) -> None:
    rows = [_row("VD", 0, 0, "1"), _row("VX", 0, 1, "1"), _row("VD", 0, 2, "2"), _row("VD", 0, 3, "0", image=None)]
    write_table(tmp_path / FILE, rows)
    found = read("hallusionbench", tmp_path, FILE)
    assert len(found.items) == 1
    assert found.bad == [
        "\"category\" is 'VX', which this benchmark does not know",
        "\"gt_answer\" is '2', which this benchmark does not know",
        '"image" holds no picture',
    ]
