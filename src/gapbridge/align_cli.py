"""`gapbridge align fit`: an alignment from two matrices in .npy files, without the pipeline.

Shapes: `n` rows, `d` width.
"""

import json
import tokenize
from pathlib import Path
from typing import Any

import click
import numpy as np

from gapbridge import artifacts
from gapbridge.align import ALIASES, RECIPES, Side, fit_held_out
from gapbridge.align.alignment import SETTINGS_FILE, TENSORS_FILE
from gapbridge.errors import InputError

_FILE = click.Path(path_type=Path)
_SHOWN = (
    ("method", "method"),
    ("n_texts", "texts fitted on"),
    ("n_images", "images fitted on"),
    ("width", "width"),
    ("text_trace", "text trace"),
    ("image_trace", "image trace"),
    ("scale", "scale"),
    ("gap_before", "gap before"),
    ("gap_after", "gap after"),
    ("gap_heldout", "gap, held-out rows"),
    ("sampling_floor", "  of which chance"),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def align() -> None:
    """Fit the alignment on matrices of your own."""


@align.command("fit")
@click.option("--texts", type=_FILE, required=True, help="Text vectors, a matrix (rows, width) in a .npy file.")
@click.option("--images", type=_FILE, required=True, help="Image vectors, likewise; no row need match a text.")
@click.option("--method", type=click.Choice([*RECIPES, *ALIASES]), default="realign", show_default=True)
@click.option("--holdout", type=float, default=0.1, show_default=True, help="Share of rows kept out to measure on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the rows kept out.")
@click.option("--out", type=_FILE, required=True, help="Folder for the alignment; new, empty, or an earlier alignment.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def fit_command(texts: Path, images: Path, method: str, holdout: float, seed: int, out: Path, as_json: bool) -> None:
    """Fit on two .npy files, write the alignment to --out, and show the figures."""
    metrics = fit_files(texts, images, out, method, holdout, seed)
    click.echo(json.dumps(metrics, sort_keys=True, allow_nan=False) if as_json else as_table(metrics))


def fit_files(
    texts: Path, images: Path, out: Path, method: str = "realign", holdout: float = 0.1, seed: int = 0
) -> dict[str, Any]:
    """Fit on the matrices (n, d) in two .npy files and save the alignment in the folder `out`.

    Each row is a group of its own. Returns the figures of `fit_held_out`. Raises InputError or ArtifactError, and
    then leaves `out` as it was.
    """
    _require_free(out)
    sides = [_side(texts, "texts"), _side(images, "images")]
    sources = {"texts": [artifacts.file_digest(texts)], "images": [artifacts.file_digest(images)]}
    alignment, metrics = fit_held_out(*sides, method=method, holdout=holdout, seed=seed, sources=sources)
    try:
        with artifacts.fresh_folder(out) as folder:
            alignment.save(folder)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
    return metrics


def as_table(metrics: dict[str, Any]) -> str:
    """The figures a person looks at first, one a line."""
    lines = []
    for key, label in _SHOWN:
        value = metrics[key]
        text = "none held out" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        lines.append(f"{label:<20} {text}")
    return "\n".join(lines)


def _side(path: Path, name: str) -> Side:
    """The matrix in `path`, mapped and not read; a row's group is its place, named apart from the other side's."""
    try:
        matrix = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a matrix saved with numpy.save") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{path}: no .npy file, or a damaged one; give a matrix saved with numpy.save") from error
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        found = f"{matrix.dtype} {matrix.shape}"
        raise InputError(f"{path}: expected floating-point numbers in rows and columns, found {found}")
    if not matrix.size:
        raise InputError(f"{path}: holds no numbers, its shape is {matrix.shape}; give two rows or more")
    return Side(matrix, [f"{name}#{row}" for row in range(len(matrix))])


def _require_free(out: Path) -> None:
    """`out` is replaced as a whole, so nothing else may lie in it."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file; name a folder for the alignment")
    if out.is_dir() and {path.name for path in out.iterdir()} - {SETTINGS_FILE, TENSORS_FILE}:
        raise InputError(f"{out}: holds other files; name a new folder for the alignment")
