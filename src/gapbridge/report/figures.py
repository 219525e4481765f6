"""From the tables that stages leave behind to the page's charts.

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars
from polars import DataFrame, col

from gapbridge.errors import ArtifactError
from gapbridge.report.charts import Chart, clouds, line_chart

SIDES = {"image": "images", "text": "texts", "aligned": "texts, aligned"}
_CLOUD_POINTS = 700
_LEAST_EIGENVALUE_SHARE = 1e-6
_TRAININGS = {
    "encoder": "Encoder",
    "llm": "Language model",
    "pretrain": "Stage 1: the adapter",
    "instruct": "Stage 2: dialogues",
}


def gap_charts(plane: DataFrame) -> list[Chart]:
    """Images with texts before, and images with aligned texts: both in the plane that geometry chose."""
    points = {side: _points(plane.filter(col("side") == side)) for side in SIDES}
    pairs = [{SIDES[side]: points[side] for side in ("image", moved)} for moved in ("text", "aligned")]
    return clouds(("Before", "After"), pairs)


def spectrum_charts(spectra: DataFrame) -> list[Chart]:
    """The covariance spectra of images and texts, before and after; eigenvalues that are rounding are left out."""
    charts = []
    for title, moved in (("Spectra before", "text"), ("Spectra after", "aligned")):
        lines = {SIDES[side]: _spectrum(spectra, side) for side in ("image", moved)}
        charts.append(line_chart(title, lines, "rank", log_x=True))
    return charts


def loss_charts(tables: Mapping[str, DataFrame]) -> list[Chart]:
    """One chart a stage that trained, in the order of the pipeline."""
    charts = []
    for stage, title in _TRAININGS.items():
        lines = _losses(tables[stage]) if stage in tables else {}
        if lines:
            charts.append(line_chart(title, lines, "step"))
    return charts


def read_table(path: Path) -> DataFrame:
    """A parquet table. Raises ArtifactError when it is missing or damaged."""
    try:
        return polars.read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: cannot be read; run the stage that writes it again") from error


def _points(side: DataFrame) -> np.ndarray:
    """At most so many points (n, 2), evenly spaced in the table, which is in no meaningful order."""
    every = max(1, side.height // _CLOUD_POINTS)
    return side.select("across", "along").gather_every(every).head(_CLOUD_POINTS).to_numpy()


def _spectrum(spectra: DataFrame, side: str) -> tuple[np.ndarray, np.ndarray]:
    kept = spectra.filter(col(side) > col(side).max() * _LEAST_EIGENVALUE_SHARE)
    return kept["rank"].to_numpy(), kept[side].to_numpy()


def _losses(table: DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training loss, and the held-out one where it was measured; a loss of 0 has no place on a logarithmic axis."""
    lines = {}
    for column, name in (("loss", "training"), ("heldout", "held out")):
        if column in table.columns:
            kept = table.filter(col(column).is_not_null() & (col(column) > 0))
            if kept.height:
                lines[name] = (kept["step"].to_numpy(), kept[column].to_numpy())
    return lines
