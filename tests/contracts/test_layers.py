import subprocess
import sys
from pathlib import Path


def test_nobody_imports_what_their_layer_must_not(checkout: Path) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_package_and_the_command_line_stay_light(checkout: Path) -> None:
    program = (
        "import sys, gapbridge, gapbridge.cli, gapbridge.params\n"
        "heavy = {'torch', 'transformers', 'open_clip', 'mlflow', 'prefect', 'polars', 'pandera', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
