"""Close the modality gap in closed form from unpaired vectors (arXiv 2602.07026 §4): numpy and safetensors only."""

from gapbridge.align.alignment import Alignment
from gapbridge.align.fit import fit
from gapbridge.align.holdout import Side, effective_number, fit_held_out, held_out_groups, sampling_floor
from gapbridge.align.methods import ALIASES, RECIPES, canonical_method
from gapbridge.align.moments import Moments
from gapbridge.align.rows import RowBatches, unit_rows

__all__ = [
    "ALIASES",
    "RECIPES",
    "Alignment",
    "Moments",
    "RowBatches",
    "Side",
    "canonical_method",
    "effective_number",
    "fit",
    "fit_held_out",
    "held_out_groups",
    "sampling_floor",
    "unit_rows",
]
