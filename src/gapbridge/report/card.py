"""The model card, in the form that model hubs read: a YAML header and Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapbridge.drawing.html import environment
from gapbridge.report.facts import Recipe, digests
from gapbridge.report.page import novel_rows
from gapbridge.report.paper import official_figures, paper_table


def model_card(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    """The card of the model that `metrics` (by stage, as `facts.read_metrics` gives them) tell of."""
    return (
        environment(Path(__file__).parent)
        .get_template("card.md")
        .render(
            recipe=recipe,
            base_models=[name for name in (recipe.encoder, recipe.llm) if name],
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
