"""What the gap does while a contrastive encoder learns: the paper's Figure 1, from snapshots of a fixed probe.

Shapes: `t` snapshots, `n` pairs of the probe, `d` width, `r` directions of the frame's principal block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gapbridge.geometry.frame import (
    Frame,
    angle_to_first_direction,
    couple,
    decompose,
    effective_condition,
    fit_frame,
    largest_angle_sine,
    leakage,
    phantom_drift,
    profile_correlation,
)

EPSILON = 1e-12
_LEAKAGE_SHARE, _STEADY_COSINE, _ANISOTROPY, _RIGHT_ANGLE = 0.5, 0.9, 2.0, 15.0
"""What counts as far below the bound, as one direction, as far from a ball, and as degrees off a right angle."""


@dataclass(frozen=True)
class Recording:
    """Unit rows of the probe and the loss's gradients at them, (t, n, d) each, and the training step of each (t,)."""

    steps: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    image_gradients: np.ndarray
    text_gradients: np.ndarray


def trace(recording: Recording, reference: int, energy: float = 0.9) -> list[dict[str, float]]:
    """One row a snapshot: what §3.1 reports of it, in the frame of snapshot number `reference`, which never moves."""
    frame = fit_frame(recording.images[reference], recording.texts[reference], energy)
    start = decompose(frame, recording.images[reference], recording.texts[reference]).passive_bias
    rows, previous = [], None
    for number, step in enumerate(recording.steps):
        images, texts = recording.images[number], recording.texts[number]
        gradients = np.concatenate([recording.image_gradients[number], recording.text_gradients[number]])
        parts, own = decompose(frame, images, texts), _same_rank(images, texts, frame.rank)
        anchored = texts - texts.mean(axis=0) + images.mean(axis=0)
        principal, passive = _spread(parts.principal_residual), _spread(parts.passive_residual)
        inner = parts.principal_residual @ frame.principal
        rows.append(
            {
                "step": float(step),
                "gap": float(np.linalg.norm(parts.principal_bias + parts.passive_bias)),
                "principal_bias": float(np.linalg.norm(parts.principal_bias)),
                "passive_bias": float(np.linalg.norm(parts.passive_bias)),
                "leakage": leakage(frame, gradients),
                "leakage_bound": largest_angle_sine(frame, own),
                "passive_bias_drift": float(
                    np.linalg.norm(parts.passive_bias - start) / max(float(np.linalg.norm(start)), EPSILON)
                ),
                "passive_bias_cosine": 1.0 if previous is None else _cosine(parts.passive_bias, previous),
                "principal_trace": float(np.trace(principal)),
                "passive_trace": float(np.trace(passive)),
                "principal_condition": effective_condition(principal),
                "passive_condition": effective_condition(passive),
                "profile_correlation": profile_correlation(_spread(inner), _spread(gradients @ frame.principal)),
                "passive_angle": angle_to_first_direction(parts.passive_bias, passive),
                **{f"coupling_{name}": value for name, value in vars(couple(parts, frame)).items()},
                **{f"phantom_{name}": value for name, value in vars(phantom_drift(anchored)).items()},
            }
        )
        previous = parts.passive_bias
    return rows


def late_window(rows: list[dict[str, float]], share: float = 0.5) -> dict[str, float]:
    """Means over the last `share` of the snapshots, each worked out by itself first (Lemma B.9)."""
    kept = rows[-max(1, round(share * len(rows))) :]
    return {name: float(np.mean([row[name] for row in kept])) for name in rows[0]}


def panels(late: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each panel of the paper's Figure 1: what it claims, what the late window shows, and whether that agrees."""
    return [
        {
            "panel": "a",
            "claim": "gradients hardly leave U, far less than sin θ allows",
            "found": f"{late['leakage']:.2f} of a gradient lies in V; sin θ is {late['leakage_bound']:.2f}",
            "shown": late["leakage"] <= _LEAKAGE_SHARE * late["leakage_bound"],
        },
        {
            "panel": "b",
            "claim": "the bias in V drifts slowly and in one direction",
            "found": f"its cosine to the snapshot before is {late['passive_bias_cosine']:.2f}, "
            f"and it has moved by {late['passive_bias_drift']:.2f} of its length",
            "shown": late["passive_bias_cosine"] >= _STEADY_COSINE,
        },
        {
            "panel": "c",
            "claim": "residuals are far from a ball, in V more so than in U",
            "found": f"largest over mean eigenvalue is {late['passive_condition']:.1f} in V "
            f"and {late['principal_condition']:.1f} in U",
            "shown": late["passive_condition"] >= max(_ANISOTROPY, late["principal_condition"]),
        },
        {
            "panel": "d",
            "claim": "the bias in V stands at a right angle to V's main spread",
            "found": f"the angle is {late['passive_angle']:.0f}°",
            "shown": late["passive_angle"] >= 90 - _RIGHT_ANGLE,
        },
    ]


def _same_rank(images: np.ndarray, texts: np.ndarray, rank: int) -> Frame:
    return Frame(fit_frame(images, texts).basis, rank)


def _spread(rows: np.ndarray) -> np.ndarray:
    """Second moments (d, d): residuals are of mean zero already, and gradients count as they are."""
    spread: np.ndarray = rows.T.astype(np.float64) @ rows / len(rows)
    return spread


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths > 0 else 1.0
