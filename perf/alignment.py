"""Speed and memory of `gapbridge align`: `python -m perf.alignment --work DIR [--rows 100000] [--width 1280]`.

In one run and in whole processes, over matrices of float16 read from disk: fit and apply; a plain float64 version of
the method that walks the files six times, as research scripts do; and one bare pass that only reads and converts the
same rows. Prints medians, ratios and peak resident memory, and writes docs/results/alignment.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_CHUNK = 4096
_PLAIN_CHUNK = 10_000


def make(folder: Path, rows: int, width: int) -> tuple[Path, Path]:
    """T.npy and I.npy (rows, width) float16: unit rows about two means a gap apart, written chunk by chunk."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"T{rows}.npy", folder / f"I{rows}.npy"
    for number, path in enumerate(paths):
        if path.exists():
            continue
        random = np.random.default_rng(number)
        mean = random.normal(size=width) / np.sqrt(width)
        matrix = np.lib.format.open_memmap(path, "w+", np.float16, (rows, width))
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            drawn = random.standard_normal((count, width), dtype=np.float32) / np.sqrt(width) + mean
            matrix[start : start + count] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        matrix.flush()
        del matrix
    return paths


def plain(texts: Path, images: Path, out: Path) -> None:
    """The method as the paper writes it, in six float64 passes over the files: the stand-in for a research script."""
    text_mean, image_mean = (_mean(path, lambda rows: rows) for path in (texts, images))
    text_trace = _mean(texts, lambda rows: ((rows - text_mean) ** 2).sum(axis=1, keepdims=True))
    image_trace = _mean(images, lambda rows: ((rows - image_mean) ** 2).sum(axis=1, keepdims=True))
    scale = np.sqrt(image_trace / text_trace)

    def stretched(rows: np.ndarray) -> np.ndarray:
        moved = image_mean + scale * (rows - text_mean)
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    drifted = _mean(texts, stretched)
    parts = []
    for rows in _unit_chunks(texts):
        moved = stretched(rows) - drifted + image_mean
        parts.append((moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float16))
    np.save(out, np.concatenate(parts))


def _mean(path: Path, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean (d,) of `function` of the unit rows, in one pass over the file."""
    total, count = np.zeros(1), 0
    for rows in _unit_chunks(path):
        total, count = total + function(rows).sum(axis=0), count + len(rows)
    return total / count


def _unit_chunks(path: Path) -> Iterator[np.ndarray]:
    matrix = np.load(path, mmap_mode="r")
    for start in range(0, len(matrix), _PLAIN_CHUNK):
        rows = matrix[start : start + _PLAIN_CHUNK].astype(np.float64)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bare(texts: Path, images: Path) -> None:
    """Read the same rows once and convert them to float64, nothing else."""
    for path in (texts, images):
        with path.open("rb") as handle:
            np.lib.format.read_magic(handle)
            shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            buffer = np.empty((_CHUNK // 16, shape[1]), dtype=dtype)
            exact = np.empty(buffer.shape)
            while handle.readinto(buffer.data):
                exact[:] = buffer


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of a whole process; its own children count too."""
    code = (
        "import resource, subprocess, sys, time; start = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def run(work: Path, rows: int, width: int, repeats: int, with_plain: bool) -> dict[str, Any]:
    """All candidates in turn, `repeats` times; medians of seconds, maxima of memory."""
    texts, images = make(work / "data", rows, width)
    sides = ["--texts", str(texts), "--images", str(images)]
    command = [str(Path(sys.executable).parent / "gapbridge"), "align"]
    alignment, aligned = str(work / "alignment"), str(work / "aligned")
    candidates = {
        "bare": [sys.executable, "-m", "perf.alignment", "--only", "bare", *sides],  # first: it warms the page cache
        "fit": [*command, "fit", *sides, "--holdout", "0", "--out", alignment],
        "apply": [*command, "apply", alignment, "--texts", str(texts), "--out", aligned],
    }
    if with_plain:
        plain_out = ["--out", str(work / "plain.npy")]
        candidates["plain"] = [sys.executable, "-m", "perf.alignment", "--only", "plain", *sides, *plain_out]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, one in candidates.items():
            taken[name].append(measure(one))
    found: dict[str, Any] = {
        name: {
            "seconds": round(statistics.median(seconds for seconds, _ in runs), 3),
            "peak_mib": round(max(memory for _, memory in runs), 1),
        }
        for name, runs in taken.items()
    }
    both = [fit[0] + move[0] for fit, move in zip(taken["fit"], taken["apply"], strict=True)]
    found |= {
        "rows": rows,
        "width": width,
        "repeats": repeats,
        "fit_and_apply_seconds": round(statistics.median(both), 3),
    }
    found["times_bare"] = round(statistics.median(both) / found["bare"]["seconds"], 2)
    if with_plain:
        slower = [one[0] / ours for one, ours in zip(taken["plain"], both, strict=True)]
        found["times_faster_than_plain"] = round(statistics.median(slower), 1)
    return found


def main() -> None:
    """Measure, print, and write docs/results/alignment.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="a folder outside the checkout, for some gigabytes")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("plain", "bare"))
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        if arguments.only == "bare":
            bare(arguments.texts, arguments.images)
        else:
            plain(arguments.texts, arguments.images, arguments.out)
        return
    results = [
        run(
            arguments.work.resolve(),
            rows,
            arguments.width,
            arguments.repeats,
            rows <= 100_000,
        )
        for rows in arguments.rows
    ]
    target = ROOT / "docs/results/alignment.json"
    target.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
