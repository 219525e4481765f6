"""How the learning rate moves: up in a line, down in half a cosine, counted in optimiser steps and never in seconds."""

import math


def warmup_steps(steps: int, warmup_fraction: float) -> int:
    """Optimiser steps of the warm-up: the fraction of `steps`, rounded up."""
    return math.ceil(steps * warmup_fraction)


def factor(step: int, steps: int, warmup_fraction: float) -> float:
    """What the base learning rate is multiplied with at `step` (from 0) of `steps` (arXiv 2602.07026 App. H).

    It rises by equal parts to 1 at the last warm-up step and falls to just above 0 at the last step.
    """
    warmup = warmup_steps(steps, warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - warmup) / (steps + 1 - warmup)))
