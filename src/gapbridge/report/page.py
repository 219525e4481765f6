"""The page: one HTML file that needs nothing else, neither network nor script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge.drawing.html import data_uri, environment, style
from gapbridge.report import facts
from gapbridge.report.charts import Chart
from gapbridge.report.gallery import Exhibit
from gapbridge.report.paper import official_figures, paper_table


@dataclass(frozen=True)
class Story:
    """All that the page shows."""

    recipe: facts.Recipe
    metrics: Mapping[str, Any]
    """By stage, as `facts.read_metrics` gives them."""
    clouds: Sequence[Chart]
    """The two modalities before and after."""
    spectra: Sequence[Chart]
    losses: Sequence[Chart]
    exhibits: Sequence[Exhibit]
    folder: Path
    """Where the exhibits' pictures lie."""


def render(story: Story) -> str:
    """The whole page as HTML; the same story gives the same text."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html")
        .render(
            style=style(),
            recipe=story.recipe,
            evaluate=story.metrics["evaluate"],
            realign=story.metrics["realign"],
            ingest=story.metrics["ingest"],
            clouds=story.clouds,
            spectra=story.spectra,
            losses=story.losses,
            drawn=[(exhibit, _shown(story, exhibit)) for exhibit in story.exhibits if not exhibit.mistake],
            mistakes=[(exhibit, _shown(story, exhibit)) for exhibit in story.exhibits if exhibit.mistake],
            novel=novel_rows(story.metrics["evaluate"]),
            paper=paper_table(story.metrics["evaluate"], scored_model(story.metrics["evaluate"])),
            official=official_figures(story.metrics["evaluate"]),
            reference=story.metrics["evaluate"].get("model"),
            digests=facts.digests({stage: story.metrics[stage] for stage in facts.STAGES}),
        )
    )


def _shown(story: Story, exhibit: Exhibit) -> str | None:
    """The picture as a data URI; None where only its vector is at hand."""
    return data_uri(story.folder / exhibit.picture) if exhibit.is_shown else None


def scored_model(evaluate: Mapping[str, Any]) -> str:
    """What the table calls the model whose scores these are."""
    return evaluate["model"]["name"] if "model" in evaluate else "this model"


def novel_rows(evaluate: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures on novel combinations of the benchmarks that have such items, beside the seen ones' score."""
    return {
        name: {**figures["novel"], "seen": figures["score"]}
        for name, figures in sorted(evaluate["benchmarks"].items())
        if "novel" in figures
    }
