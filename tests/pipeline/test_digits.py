"""The worked example on real pictures, as a user runs it."""

import json
import sys
from pathlib import Path

import pytest

from .conftest import call, copy_of_tracked_files, environment

MARGIN = 0.15


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_model_of_handwritten_digits_sees(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    copy_of_tracked_files(workspace, "default")
    env = environment(tmp_path)
    call(workspace, env, sys.executable, "examples/digits/prepare.py")
    call(workspace, env, "gapbridge", "profile", "digits")
    said = call(workspace, env, sys.executable, "-m", "flows.train")
    scores = json.loads((workspace / "metrics/evaluate.json").read_text())["benchmarks"]
    for benchmark in ("digit", "yes_no"):
        assert scores[benchmark]["score"] >= scores[benchmark]["blind"] + MARGIN
    assert "yes_no" in said[said.rindex("benchmark") :]
    picture = next((workspace / "data/digits/benchmark").glob("*.png"))
    answer = call(workspace, env, "gapbridge", "ask", str(picture), "which digit is this?")
    assert answer.strip()
