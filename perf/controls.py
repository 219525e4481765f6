"""The paper's controls over several seeds of the whole chain: `python perf/controls.py --seeds 0 1 2 --jobs 2`.

Each seed has a workspace of its own (the committed files) and all share one DVC cache, so that a control
reruns only what it changes. Writes docs/results/controls.json and prints the README's table of means and spreads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ("realign", "anchor", "none", "paired", "nostage1")
BENCHMARKS = ("pope", "color", "shape", "position", "count", "caption_f1")


def prepare(workspace: Path, cache: Path) -> None:
    """A clean checkout of HEAD at `workspace`, its DVC cache at `cache`."""
    if not workspace.exists():
        _run(["git", "clone", "--quiet", str(ROOT), str(workspace)], ROOT)
    else:
        _run(["git", "fetch", "--quiet", "origin"], workspace)
        _run(["git", "checkout", "--quiet", "--force", "--detach", "origin/HEAD"], workspace)
    _run(["dvc", "config", "--local", "cache.dir", str(cache)], workspace)


def measure(workspace: Path, seed: int, control: str, threads: int) -> dict[str, Any]:
    """Run the chain up to `evaluate` under one control and return metrics/evaluate.json."""
    _run(["gapbridge", "profile", "default" if control == "realign" else control, "--force"], workspace)
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["seed"] = seed
    for stage in ("embed", "pretrain", "instruct", "evaluate"):
        params[stage]["threads"] = threads
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    _run(["dvc", "repro", "evaluate"], workspace)
    return json.loads((workspace / "metrics/evaluate.json").read_text())


def measure_seed(work: Path, seed: int, controls: list[str], threads: int) -> dict[str, Any]:
    """Every control of one seed, one after the other in one workspace."""
    workspace = work / f"seed-{seed}"
    prepare(workspace, work / "dvc-cache")
    results = {}
    for control in controls:
        results[control] = measure(workspace, seed, control, threads)
        print(f"seed {seed} {control}: average {results[control]['average']:.3f}", file=sys.stderr, flush=True)
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row a control, mean ± standard deviation over the seeds, and each benchmark's mean."""
    controls = list(next(iter(results.values())))
    head = ["control", "average", "blind", *BENCHMARKS]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for control in controls:
        runs = [seed_results[control] for seed_results in results.values()]
        cells = [_spread([run["average"] for run in runs]), _spread([run["average_blind"] for run in runs])]
        cells += [_spread([run["benchmarks"][name]["score"] for run in runs]) for name in BENCHMARKS]
        lines.append("| " + " | ".join([control, *cells]) + " |")
    return "\n".join(lines)


def seeds_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: the default chain, one row a seed, each score beside its blind floor."""
    lines = ["| seed | " + " | ".join(BENCHMARKS) + " |", "|" + " --- |" * (len(BENCHMARKS) + 1)]
    for seed, by_control in results.items():
        scores = by_control["realign"]["benchmarks"]
        cells = [f"{scores[name]['score']:.3f} ({scores[name]['blind']:.2f})" for name in BENCHMARKS]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _run(command: list[str], folder: Path) -> None:
    """Run a command quietly; its output goes to controls.log beside the workspace."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The checkout's own code, not what is installed: that may be edited meanwhile.
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src")}
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=True)


def main() -> None:
    """Measure, write docs/results/controls.json, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", nargs="+", default=list(CONTROLS), choices=CONTROLS)
    parser.add_argument("--jobs", type=int, default=2, help="seeds measured at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads a stage")
    parser.add_argument("--work", type=Path, required=True, help="a folder outside the checkout for the workspaces")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = pool.map(lambda seed: measure_seed(work, seed, arguments.controls, arguments.threads), arguments.seeds)
        results = {str(seed): run for seed, run in zip(arguments.seeds, runs, strict=True)}
    target = ROOT / "docs/results/controls.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(seeds_table(results), table(results), sep="\n\n")


if __name__ == "__main__":
    main()
