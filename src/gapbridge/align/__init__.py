"""Close the modality gap in closed form from unpaired vectors (arXiv 2602.07026 §4): numpy and safetensors only."""

from gapbridge.align.alignment import Alignment
from gapbridge.align.drift import Drift, measure_drift
from gapbridge.align.fit import Centroid, fit, from_moments, summarise
from gapbridge.align.holdout import (
    Options,
    Side,
    effective_number,
    fit_held_out,
    held_out_groups,
    held_out_rows,
    sampling_floor,
)
from gapbridge.align.methods import ALIASES, RECIPES, canonical_method
from gapbridge.align.moments import Moments
from gapbridge.align.rows import RowBatches, unit_rows

__all__ = [
    "ALIASES",
    "RECIPES",
    "Alignment",
    "Centroid",
    "Drift",
    "Moments",
    "Options",
    "RowBatches",
    "Side",
    "canonical_method",
    "effective_number",
    "fit",
    "fit_held_out",
    "from_moments",
    "held_out_groups",
    "held_out_rows",
    "measure_drift",
    "sampling_floor",
    "summarise",
    "unit_rows",
]
