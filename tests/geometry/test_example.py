"""The example of docs/geometry.md runs as it stands, and is as short as it says."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "geometry.md"


def test_the_example_for_library_users_runs() -> None:
    found = re.search(r"<!-- example -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    code = found.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    before, heldout, floor = map(float, done.stdout.splitlines()[0].split())
    assert before > 0.3 > heldout and heldout < 2 * floor
