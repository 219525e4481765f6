"""The alignment stays light."""

import subprocess
import sys


def test_importing_the_alignment_brings_nothing_heavy() -> None:
    heavy = ("torch", "polars", "pandera", "transformers", "matplotlib", "pydantic")
    code = f"import sys, gapbridge.align; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
