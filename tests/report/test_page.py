"""The page and the card: whole, self-contained, the same twice, and true to the figures."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapbridge.drawing.html import figure, percent
from gapbridge.errors import ArtifactError
from gapbridge.report import figures
from gapbridge.report.card import model_card
from gapbridge.report.facts import Recipe, read_metrics
from gapbridge.report.gallery import draw, read_gallery, write_gallery
from gapbridge.report.licences import stated_licence
from gapbridge.report.page import Story, render
from gapbridge.report.summary import table

from . import made_up

_VOID = {"meta", "img", "br", "hr", "link", "input", "line"}
_LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class _Page(HTMLParser):
    """Collects what a page loads, its words, and whether its tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [(tag, value or "") for name, value in attributes if name in _LOADING]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


def _story(folder: Path, recipe: Recipe | None = None, **changes: Any) -> Story:
    story = {
        "recipe": recipe or Recipe(),
        "metrics": made_up.metrics(),
        "clouds": figures.gap_charts(made_up.plane()),
        "spectra": figures.spectrum_charts(made_up.spectra()),
        "losses": figures.loss_charts({"pretrain": made_up.losses()}),
        "exhibits": write_gallery(folder, draw(made_up.predictions(), 12, seed=0), made_up.picture),
        "folder": folder,
    }
    return Story(**{**story, **changes})


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    text = render(_story(tmp_path))
    page = _Page(text)
    assert page.open == []
    assert page.loads
    assert all(tag == "img" and value.startswith("data:image/png;base64,") for tag, value in page.loads)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_page_shows_the_figures(tmp_path: Path) -> None:
    words = " ".join(_Page(render(_story(tmp_path))).words.replace("\u00a0", " ").split())
    for expected in (
        "87.5 %", "75.0 %", "81.2 %", "37.5 %",  # scores and averages
        "62.5 %", "8 items",  # novel combinations
        "0.391", "6.6e-4", "0.0412", "0.0361",  # the gap
        "says yes to 45.0 %", "random 90.0 %",
        "1\u202f234", "20\u202f000", "empty <text> (3)", "texts and images",
        made_up.DIGEST, "yes-no/1",
    ):  # fmt: skip
        assert expected.replace("\u202f", " ") in words.replace("\u202f", " "), expected


def test_the_gallery_shows_question_right_answer_and_the_models(tmp_path: Path) -> None:
    story = _story(tmp_path)
    words = _Page(render(story)).words
    wrong = [exhibit for exhibit in story.exhibits if exhibit.score == 0]
    assert wrong
    for exhibit in story.exhibits:
        assert exhibit.question in words
        assert exhibit.said in words
        assert (f"Right: {exhibit.answer}" in words) == (exhibit in wrong)


def test_the_same_story_gives_the_same_page(tmp_path: Path) -> None:
    first, second = (_story(tmp_path / name) for name in "ab")
    assert render(first) == render(second)
    for exhibit in first.exhibits:
        assert (tmp_path / "a" / exhibit.picture).read_bytes() == (tmp_path / "b" / exhibit.picture).read_bytes()


def test_a_control_says_so_and_missing_parts_are_left_out(tmp_path: Path) -> None:
    metrics = made_up.metrics()
    metrics["realign"] |= {"gap_heldout": None, "sampling_floor": None}
    del metrics["evaluate"]["benchmarks"]["pope"]["novel"]
    del metrics["evaluate"]["benchmarks"]["pope"]["subsets"]
    recipe = Recipe(method="none", stage1=False, stage2_source="aligned_text")
    words = _Page(render(_story(tmp_path, recipe, metrics=metrics, clouds=[], spectra=[], losses=[]))).words
    assert "a control run" in words
    assert "Stage 1 was left out" in words
    assert "left open" in words
    assert "Combinations never seen" not in words
    assert "of its questions." in words and "By what the denied thing shares" not in words
    assert "Training" not in words.split()


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ("full", "Stage 2: adapter and language model learn from"),
        ("lora", "Stage 2: adapter and low-rank additions to the language model learn from"),
        ("frozen", "Stage 2: the adapter learns from"),
    ],
)
def test_the_page_says_what_learned_in_stage_2(tune: str, said: str, tmp_path: Path) -> None:
    assert said in _Page(render(_story(tmp_path, Recipe(stage2_tune=tune)))).words


def test_the_gallery_is_drawn_by_the_seed_from_all_answers() -> None:
    items = made_up.predictions()
    drawn = draw(items, 12, seed=0)
    assert drawn == draw(items, 12, seed=0)
    assert drawn != draw(items, 12, seed=1)
    assert [mistake for _, mistake in drawn[:12]] == [False] * 12
    assert {item["correct"] for item, _ in drawn[:12]} == {True, False}
    assert all(not item["correct"] for item, mistake in drawn if mistake)
    assert len({item["item_id"] for item, _ in drawn}) == len(drawn)
    assert len(draw(items[:3], 12, seed=0)) == 3


def test_gallery_pictures_are_small_pngs_and_the_list_can_be_read(tmp_path: Path) -> None:
    story = _story(tmp_path)
    assert read_gallery(tmp_path) == list(story.exhibits)
    for exhibit in story.exhibits:
        assert (tmp_path / exhibit.picture).read_bytes().startswith(b"\x89PNG")


def test_the_card_has_a_header_that_hubs_read_and_true_scores() -> None:
    recipe = Recipe(llm="OWNER/NAME: odd", seed=3)
    text = model_card(recipe, made_up.metrics())
    _, header, body = text.split("---\n", 2)
    content = yaml.safe_load(header)
    assert content["license"] == "other"
    assert content["base_model"] == ["OWNER/NAME: odd"]
    results = {result["dataset"]["type"]: result["metrics"][0] for result in content["model-index"][0]["results"]}
    assert results["pope"] == {"name": "yes-no/1", "type": "accuracy", "value": 0.875}
    for expected in ("87.5", "`yes-no/1`", "0.391", "| texts | 20000 | 900 | 3 |", made_up.DIGEST, "## Limits"):
        assert expected in body
    assert "| language model OWNER/NAME: odd | its files state none; look where it comes from |" in body
    own = model_card(Recipe(), made_up.metrics())
    assert "base_model" not in own and yaml.safe_load(own.split("---\n", 2)[1])["license"] == "apache-2.0"
    assert "no pretrained part is inside" in own


def test_the_card_tells_its_models_digest_the_parts_licences_and_what_the_figures_limit() -> None:
    metrics = made_up.metrics()
    metrics["realign"]["gap_heldout"] = 0.2
    metrics["ingest"]["disjoint"]["near_twins"] = {"pictures": 90, "images": 0, "instruct": 4}
    text = model_card(Recipe(encoder="transformers:models/a"), metrics, "cd" * 32, {"encoder": "other (a-name)"})
    for expected in (
        f"| this model | `{'cd' * 32}` |",
        "| encoder transformers:models/a | other (a-name) |",
        "- 1 answers of the evaluation held no answer that could be read",
        "- On rows kept out the gap is 0.2 where chance alone would leave 0.0361",
        "- 4 of 90 pictures of the benchmark look like one of the set instruct",
    ):
        assert expected in text
    assert "of the set images" not in text


def test_a_licence_is_read_from_the_parts_own_card_and_never_guessed(tmp_path: Path) -> None:
    part = tmp_path / "models/one"
    part.mkdir(parents=True)
    assert stated_licence("transformers:models/one", None, tmp_path) is None
    for header, expected in {
        "---\nlicense: llama3\n---\n# Words": "llama3",
        "---\nlicense: other\nlicense_name: a-name\n---\n": "other (a-name)",
        "---\ntags: [x]\n---\nlicense: mit": None,
        "---\nlicense: [": None,
        "# license: mit": None,
    }.items():
        (part / "README.md").write_text(header)
        assert stated_licence("models/one", None, tmp_path) == expected
    (part / "README.md").write_text("---\nlicense: mit\n---\n")
    both = stated_licence("llm2clip:models/one+models/two", None, tmp_path)
    assert both == "models/one: mit, models/two: none stated"
    (part / "README.md").unlink()
    assert stated_licence("llm2clip:models/one+models/two", None, tmp_path) is None
    assert stated_licence("OWNER/NEVER-DOWNLOADED", "0" * 40, tmp_path) is None
    assert stated_licence("ViT-B-32/openai", None, tmp_path) is None


def test_the_summary_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="evaluate has not run here; run `dvc repro`"):
        table(tmp_path)


def test_the_summary_shows_scores_gap_places_and_what_to_try(tmp_path: Path) -> None:
    made_up.write_metrics(tmp_path / "metrics", made_up.metrics())
    assert "`gapbridge report`" in table(tmp_path)
    exhibits = _story(tmp_path / "artifacts/report").exhibits
    lines = table(tmp_path).replace("\u00a0", " ").splitlines()
    assert lines[1].split() == ["color", "75.0", "%", "25.0", "%", "20.0", "%", "1234", "–"]
    assert lines[3].split() == ["average", "81.2", "%", "37.5", "%"]
    text = "\n".join(lines)
    for expected in ("before 0.391, after 6.6e-4", "0.0412, sampling floor 0.0361", "artifacts/report/index.html"):
        assert expected in text
    assert f"gapbridge ask artifacts/report/{exhibits[0].picture} '{exhibits[0].question}'" in text
    assert (tmp_path / "artifacts/report" / exhibits[0].picture).exists()


@pytest.mark.parametrize("stage", ["evaluate", "realign"])
def test_the_summary_refuses_what_is_no_stages_figures(stage: str, tmp_path: Path) -> None:
    made_up.write_metrics(tmp_path / "metrics", made_up.metrics() | {stage: {}})
    with pytest.raises(ArtifactError, match=rf"{stage}\.json: not the figures of {stage}; run `gapbridge {stage}`"):
        table(tmp_path)


def test_metrics_are_read_by_stage(tmp_path: Path) -> None:
    made_up.write_metrics(tmp_path, made_up.metrics())
    assert read_metrics(tmp_path)["realign"]["width"] == 256


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0"), (0.391, "0.391"), (6.61e-4, "6.6e-4"), (12.3456, "12.3")]
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text
    assert percent(0.8125) == "81.2\u00a0%"
