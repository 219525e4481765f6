"""The paper's table beside our figures, in page and card."""

from pathlib import Path
from typing import Any

import yaml

from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.evaluate.scores import whole_figures
from gapbridge.report.card import model_card
from gapbridge.report.facts import Recipe
from gapbridge.report.page import Story, render
from gapbridge.report.paper import PAPER, official_figures, paper_table
from gapbridge.report.summary import table

from . import made_up

GENERAL = ["mme", "mmstar", "scienceqa", "realworldqa"]


def figures(names: list[str]) -> dict[str, Any]:
    """Scores .30, .31, … in the order of `names`, blind a third of that."""
    usual = made_up.metrics()["evaluate"]["benchmarks"]["color"]
    scores = {name: 0.3 + place / 100 for place, name in enumerate(names)}
    return {name: {**usual, "score": score, "blind": score / 3} for name, score in scores.items()}


def metrics(names: list[str], **more: Any) -> dict[str, Any]:
    return made_up.metrics() | {"evaluate": {**whole_figures(figures(names), BENCHMARKS), **more}}


def page(content: dict[str, Any]) -> str:
    return render(Story(Recipe(), content, clouds=[], spectra=[], losses=[], exhibits=[], folder=Path()))


def test_all_eleven_give_every_column_and_average() -> None:
    whole = whole_figures(figures(list(BENCHMARKS)), BENCHMARKS)
    found = paper_table(whole, "ours")
    assert found is not None
    assert [column.title for column in found.columns][:3] == ["average of all", "MME", "MMStar"]
    assert found.families == [("general", 5), ("reasoning", 5), ("hallucination", 4)]
    ours, blind, *paper = found.rows
    expected = [0.35, 0.30, 0.31, 0.32, 0.33, 0.315, 0.34, 0.35, 0.36, 0.37, 0.355, 0.38, 0.39, 0.40, 0.39]
    assert [round(share, 6) for share in ours.shares if share is not None] == expected
    assert [round(3 * share, 6) for share in blind.shares if share is not None] == expected
    assert [(row.name, row.shares[0], set(row.shares[1:])) for row in paper] == [
        (name, average / 100, {None}) for name, average in PAPER
    ]


def test_averages_are_stated_where_a_family_is_whole() -> None:
    whole = whole_figures(figures([*GENERAL, "mmmu"]), BENCHMARKS)
    found = paper_table(whole, "ours")
    assert found is not None
    shares = dict(zip([(column.family, column.title) for column in found.columns], found.rows[0].shares, strict=True))
    assert shares["general", "average"] == whole["families"]["general"]["score"]
    assert (shares[None, "average of all"], shares["reasoning", "average"]) == (None, None)
    assert shares["reasoning", "MMMU (val)"] == whole["benchmarks"]["mmmu"]["score"]
    assert shares["reasoning", "MMMU-Pro"] is None


def test_without_any_of_them_there_is_no_table() -> None:
    assert paper_table(made_up.metrics()["evaluate"], "ours") is None
    for text in (page(made_up.metrics()), model_card(Recipe(), made_up.metrics())):
        assert "50.16" not in text


def test_page_and_card_show_it() -> None:
    content = metrics(list(BENCHMARKS))
    content["evaluate"]["benchmarks"]["mme"] |= {"accuracy_plus": 0.25, "perception": 1432.125, "cognition": 310.0}
    shown, card = page(content), model_card(Recipe(), content)
    for expected in ("50.16", "43.94", "7.85", "35.00", "Hallusion\u200bBench", "1432.1", "accuracy plus 25.0"):
        assert expected in shown
    assert "| this model | 35.00 | 30.00 | 31.00 |" in card
    assert "| ReAlign | 50.16 | – | – |" in card
    lines = [line for line in card.splitlines() if line.startswith("|") and line.count("|") > 15]
    assert len(lines) == 4 + len(PAPER) and len({line.count("|") for line in lines}) == 1
    assert official_figures(content["evaluate"]) == {
        "MME": ["accuracy plus 25.0\u00a0%", "perception 1432.1", "cognition 310.0"]
    }


def test_the_scores_of_a_reference_are_never_called_the_models(tmp_path: Path) -> None:
    reference = {"name": "tiny-llava", "architecture": "LlavaForConditionalGeneration", "digest": "f"}
    content = metrics(GENERAL, model=reference)
    shown, card = page(content), model_card(Recipe(), content)
    assert "<th>tiny-llava</th>" in shown and "<th>tiny-llava, blind</th>" in shown
    assert "scores of a reference, <code>tiny-llava</code>" in shown
    assert "this model" not in shown
    assert "the last evaluation was that of a reference, `tiny-llava`" in card
    assert "model-index" not in yaml.safe_load(card.split("---\n", 2)[1])
    assert "31.0" not in card
    made_up.write_metrics(tmp_path / "metrics", content)
    assert table(tmp_path).startswith("These are the scores of a reference, tiny-llava.")
