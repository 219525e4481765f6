"""The stage encoder: it trains from its own pairs, and is scored on the probe's however many are read at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gapbridge.stages import encoder

from .direct import run_directly

SetParams = Callable[..., None]
SMALL = {
    "image_size": 32,
    "width": 32,
    "group_rows": 1,
    "snapshot_count": 2,
    "training": {
        "steps": 2, "batch_size": 8, "learning_rate": 0.002, "weight_decay": 0.05, "warmup_fraction": 0.1,
    },
}  # fmt: skip


def test_the_score_does_not_depend_on_how_many_are_read_at_once(
    workspace: Path, user_files: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(encoder=SMALL)
    run_directly(workspace, "ingest")
    whole = run_directly(workspace, "encoder")
    monkeypatch.setattr(encoder, "SCORED_AT_ONCE", 4)
    parts = run_directly(workspace, "encoder")
    assert parts["probe_pairs"] > 4 and parts["gap"] == pytest.approx(whole["gap"], abs=1e-5)
    assert parts["fingerprint"] == whole["fingerprint"] and parts["retrieval"] == whole["retrieval"]
