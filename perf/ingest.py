"""Speed and memory of `gapbridge ingest`: `python -m perf.ingest --work DIR [--rows 100000] [--megabytes 1000]`.

Whole processes, imports and tracking included: JSON Lines of short texts (read, validated, looked through for ids used
twice, written sorted), and a JSON list in LLaVA's layout of as many rows as fill the megabytes. The other sets are the
smallest that the world draws. Prints seconds, those of a processor among them (all that counts on a busy machine), and
peak resident memory, and writes docs/results/ingest.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gapbridge.profiles import overlay, profile_text

ROOT = Path(__file__).resolve().parents[1]
_SMALLEST = {
    name: {"format": "world", "rows": 40 if name != "benchmark" else 12}
    for name in ("images", "encoder", "llm", "instruct", "probe", "benchmark")
}
_WORDS = [
    "a",
    "small",
    "red",
    "circle",
    "stands",
    "on",
    "the",
    "left",
    "of",
    "some",
    "blue",
    "ring",
    "while",
    "two",
    "green",
    "squares",
    "lie",
    "on",
    "top",
]


def texts(rows: int) -> Iterator[str]:
    """Captions as JSON Lines, all different."""
    for row in range(rows):
        words = [_WORDS[(row * step) % len(_WORDS)] for step in range(1, 13)]
        yield json.dumps({"id": f"{row:09d}", "text": f"{' '.join(words)} {row}"}) + "\n"


def dialogues(megabytes: int) -> Iterator[str]:
    """A JSON list of LLaVA's rows, about 500 bytes each."""
    written, row = 0, 0
    while written < megabytes * 1_000_000:
        answer = f"{' '.join(_WORDS[(row + step) % len(_WORDS)] for step in range(70))} {row}"
        spoken = [{"from": "human", "value": "<image>\nwhat is this"}, {"from": "gpt", "value": answer}]
        line = ("[" if not row else ",\n") + json.dumps({"id": f"{row:09d}", "conversations": spoken})
        written, row = written + len(line), row + 1
        yield line
    yield "]\n"


def measure(work: Path, source: dict[str, Any], lines: Iterator[str]) -> dict[str, Any]:
    """Write the file, ingest it as `texts` in a process of its own, and say what that took."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    path = work / source["path"]
    with path.open("w", encoding="utf-8") as handle:
        handle.writelines(lines)
    params = yaml.safe_load(profile_text(ROOT, "default"))
    params = overlay(params, {"sources": {**_SMALLEST, "texts": source}, "ingest": {"min_rows": 1}})
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(ROOT / "dvc.yaml", work)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gapbridge.cli", "ingest"], cwd=work, stderr=subprocess.DEVNULL, env=_environment(work)
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"gapbridge ingest ended with status {status}; run it in {work} to see why")
    told = json.loads((work / "metrics/ingest.json").read_text())["sets"]["texts"]
    found = {"rows": told["rows"], "megabytes": round(path.stat().st_size / 1e6), "format": source["format"]}
    shutil.rmtree(work)
    cpu_seconds = round(used.ru_utime + used.ru_stime, 1)
    return {**found, "seconds": round(seconds, 1), "cpu_seconds": cpu_seconds, "peak_mib": round(used.ru_maxrss / 1024)}


def _environment(work: Path) -> dict[str, str]:
    return {**os.environ, "GAPBRIDGE_CACHE": str(work / "cache"), "GAPBRIDGE_SCRATCH": str(work / "scratch")}


def main() -> None:
    """Measure, print, and write docs/results/ingest.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder outside the checkout, for some gigabytes")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    arguments = parser.parse_args()
    work = arguments.work.resolve() / "ingest"
    results = {
        "command": f"python -m perf.ingest --rows {arguments.rows} --megabytes {arguments.megabytes}",
        "texts": measure(work, {"format": "jsonl", "path": "texts.jsonl"}, texts(arguments.rows)),
        "json_list": measure(work, {"format": "llava", "path": "list.json"}, dialogues(arguments.megabytes)),
    }
    (ROOT / "docs/results/ingest.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
