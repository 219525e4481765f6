"""`gapbridge align fit`, `align apply` and `drift`: the alignment for people with vectors of their own."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from gapbridge.align import ALIASES, RECIPES, Options
from gapbridge.align.fit import C3_NOISE
from gapbridge.align_files import MAX_BAD_FRACTION, SAMPLE_ROWS, apply_files, drift_files, fit_files
from gapbridge.errors import InputError

_FILE = click.Path(path_type=Path)
_SHAPES = "a .npy or .safetensors matrix, a folder of .npy, clip-retrieval's folders, or our shards"
_RECALIBRATE = 3
_FIT_SHOWN = (
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
_COUNTED = (
    ("off_unit_texts", "texts not of unit length"),
    ("off_unit_images", "images not of unit length"),
    ("bad_texts", "bad texts left out"),
    ("bad_images", "bad images left out"),
)
_APPLY_SHOWN = (("n_texts", "texts written"), ("width", "width"))
_DRIFT_SHOWN = (
    ("n_texts", "texts"),
    ("n_images", "images"),
    ("text_mean_shift_in_errors", "text mean shift, in standard errors"),
    ("text_trace_ratio", "text trace, new over stored"),
    ("image_mean_shift_in_errors", "image mean shift, in standard errors"),
    ("image_trace_ratio", "image trace, new over stored"),
    ("gap_raw", "gap before aligning"),
    ("gap_stored", "gap with the stored statistics"),
    ("gap_fresh", "gap with fresh ones"),
    ("sampling_floor", "  of which chance"),
)

_texts = click.option("--texts", type=_FILE, required=True, help=f"Text vectors: {_SHAPES}.")
_bad = click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    default=MAX_BAD_FRACTION,
    show_default=True,
    help="Stop when more rows than this are zero or not finite; fewer are left out and listed in quarantine.parquet.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def align() -> None:
    """Fit and apply the alignment on vectors of your own."""


@align.command("fit")
@_texts
@click.option("--images", type=_FILE, required=True, help="Image vectors, likewise; no row need match a text.")
@click.option("--method", type=click.Choice([*RECIPES, *ALIASES]), default="realign", show_default=True)
@click.option("--holdout", type=float, default=0.1, show_default=True, help="Share of rows kept out to measure on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the rows kept out, and c3's noise.")
@click.option(
    "--centroid-iterations",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Centroid steps; more than one end where the held-out gap stops falling.",
)
@click.option("--noise", type=click.FloatRange(0), default=C3_NOISE, show_default=True, help="Length of c3's noise.")
@click.option("--out", type=_FILE, required=True, help="Folder for the alignment; new, empty, or an earlier alignment.")
@_bad
@_json
def fit_command(texts: Path, images: Path, out: Path, max_bad_fraction: float, as_json: bool, **options: Any) -> None:
    """Fit on unpaired vectors, write the alignment to --out, and show the figures."""
    figures = fit_files(texts, images, out, Options(**options), max_bad_fraction)
    _show(figures, _FIT_SHOWN, as_json)


@align.command("apply")
@click.argument("folder", metavar="DIR", type=_FILE)
@_texts
@click.option("--out", type=_FILE, required=True, help="Folder for the aligned vectors, in clip-retrieval's layout.")
@click.option("--fp32", is_flag=True, help="Store 32-bit numbers instead of 16-bit ones.")
@_bad
@_json
def apply_command(folder: Path, texts: Path, out: Path, fp32: bool, max_bad_fraction: float, as_json: bool) -> None:
    """Move text vectors to the image side by the alignment in DIR, in their order and with their ids."""
    figures = apply_files(folder, texts, out, np.dtype("<f4" if fp32 else "<f2"), max_bad_fraction)
    _show(figures, _APPLY_SHOWN, as_json)


@click.command("drift", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR", type=_FILE)
@_texts
@click.option("--images", type=_FILE, default=None, help="Image vectors, likewise; the stored statistics otherwise.")
@_bad
@_json
@click.pass_context
def drift(
    context: click.Context, folder: Path, texts: Path, images: Path | None, max_bad_fraction: float, as_json: bool
) -> None:
    """Say whether the alignment in DIR still fits new vectors; exit status 0 it does, 3 recalibrate."""
    found = drift_files(folder, texts, images, max_bad_fraction)
    _show(found.figures, _DRIFT_SHOWN, as_json)
    if not as_json:
        click.echo(f"recalibrate: {'; '.join(found.reasons)}" if found.recalibrate else "fits: no need to recalibrate")
    context.exit(_RECALIBRATE if found.recalibrate else 0)


@click.command("gap", context_settings={"help_option_names": ["-h", "--help"]})
@_texts
@click.option("--images", type=_FILE, required=True, help="Image vectors, likewise.")
@click.option("--paired", is_flag=True, help="Row i of the texts belongs to row i of the images: measure pairs too.")
@click.option("--method", type=click.Choice([*RECIPES, *ALIASES]), default="realign", show_default=True)
@click.option("--holdout", type=float, default=0.1, show_default=True, help="Share of rows kept out to measure on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample and the rows kept out.")
@click.option("--rows", type=click.IntRange(40), default=SAMPLE_ROWS, show_default=True, help="Rows a side to look at.")
@click.option(
    "--domain", "domains", nargs=3, multiple=True, metavar="NAME TEXTS IMAGES", help="Another set to compare with."
)
@click.option("--out", type=_FILE, required=True, help="Folder for figures, pictures and the page index.html.")
@_bad
@_json
def gap(
    texts: Path,
    images: Path,
    paired: bool,
    rows: int,
    domains: tuple[tuple[str, str, str], ...],
    out: Path,
    max_bad_fraction: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Diagnose the gap: how wide, of what shape, is the sample large enough; with pictures and one page."""
    from gapbridge.drawing.diagnosis import PAGE_FILE
    from gapbridge.gap_files import gap_files

    if len({name for name, *_ in domains}) < len(domains):
        raise InputError("--domain: a name is given twice; name every set once")
    figures = gap_files(
        texts,
        images,
        out,
        paired=paired,
        options=Options(**options),
        rows=rows,
        domains={name: (Path(first), Path(second)) for name, first, second in domains},
        max_bad_fraction=max_bad_fraction,
    )
    if as_json:
        click.echo(json.dumps(figures, sort_keys=True, allow_nan=False))
        return
    _show(figures["fit"], _FIT_SHOWN, as_json=False)
    click.echo(f"{figures['headline']}\n{figures['advice']}\nopen {out / PAGE_FILE}")


def _show(figures: dict[str, Any], shown: tuple[tuple[str, str], ...], as_json: bool) -> None:
    """The figures a person looks at first, one a line, and counts of what was mended or left out; or all as JSON."""
    if as_json:
        click.echo(json.dumps(figures, sort_keys=True, allow_nan=False))
        return
    counted = [(key, label) for key, label in _COUNTED if figures.get(key)]
    rows = [(label, figures[key]) for key, label in (*shown, *counted) if key in figures]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        text = "none held out" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        click.echo(f"{label:<{width}}  {text}")
