"""The model card, in the form that model hubs read: a YAML header and Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapbridge.drawing.html import environment
from gapbridge.report.facts import Recipe, digests
from gapbridge.report.page import novel_rows
from gapbridge.report.paper import official_figures, paper_table


def model_card(
    recipe: Recipe,
    metrics: Mapping[str, Any],
    model: str | None = None,
    licences: Mapping[str, str | None] | None = None,
) -> str:
    """The card of the model that `metrics` (by stage, as `facts.read_metrics` gives them) tell of.

    `model` is the directory's `artifacts.model_digest`, by which `gapbridge export` knows whose card it is; `licences`
    has what the pinned parts' own cards state, by part.
    """
    return (
        environment(Path(__file__).parent)
        .get_template("card.md")
        .render(
            recipe=recipe,
            model=model,
            licences=licences or {},
            base_models=recipe.base_models,
            evaluate=metrics["evaluate"],
            realign=metrics["realign"],
            ingest=metrics["ingest"],
            reference=metrics["evaluate"].get("model"),
            paper=paper_table(metrics["evaluate"], "this model"),
            official=official_figures(metrics["evaluate"]),
            novel=novel_rows(metrics["evaluate"]),
            digests=digests({stage: metrics[stage] for stage in ("encoder", "llm", "pretrain", "instruct")}),
        )
    )
