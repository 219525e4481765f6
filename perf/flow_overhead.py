"""What the flow costs over its bare stages: `python -m perf.flow_overhead --work DIR [--profile smoke]`.

Runs the chain from nothing twice, each in a workspace and with caches of its own: by the Prefect flow, and as bare
`gapbridge STAGE` processes in the same order, as many at a time, without Prefect and DVC; both tell MLflow. Both run on
the same machine within minutes, so their ratio says more than either. Writes docs/results/flow-overhead.json.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import click

from flows.chain import WORKERS
from flows.pipeline import graph
from gapbridge import artifacts

ROOT = Path(__file__).resolve().parents[1]


def _prepare(workspace: Path, profile: str) -> dict[str, str]:
    """A clean checkout of HEAD; the environment that gives it empty caches and stores."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(workspace)], check=True)
    own = {name: str(workspace.parent / f"{workspace.name}-{name.lower()}") for name in
           ("GAPBRIDGE_CACHE", "GAPBRIDGE_SCRATCH", "PREFECT_HOME")}  # fmt: skip
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **own, "PATH": programs, "PYTHONPATH": str(workspace / "src")}
    subprocess.run(["gapbridge", "profile", profile, "--force"], cwd=workspace, env=environment, check=True)
    return environment


def _run(command: list[str], workspace: Path, environment: dict[str, str]) -> None:
    with (workspace.parent / f"{workspace.name}.log").open("ab") as log:
        subprocess.run(command, cwd=workspace, env=environment, stdout=log, stderr=log, check=True)


def _bare(workspace: Path, environment: dict[str, str]) -> None:
    """Every stage as one process, started when those it waits for are done."""
    waiting, running, done = graph(workspace), dict[Future[None], str](), set[str]()
    with ThreadPoolExecutor(WORKERS) as pool:
        while waiting or running:
            for stage in [name for name, deps in waiting.items() if deps <= done][: WORKERS - len(running)]:
                del waiting[stage]
                running[pool.submit(_run, ["gapbridge", *stage.split("@")], workspace, environment)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                done.add(running.pop(future))


@click.command()
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="a new folder")
@click.option("--profile", default="default", show_default=True)
def main(work: Path, profile: str) -> None:
    """Print the seconds of both and their ratio, and write them down."""
    work.mkdir(parents=True)
    seconds = {}
    for name in ("flow", "bare"):
        workspace = work.resolve() / name
        environment = _prepare(workspace, profile)
        started = time.monotonic()
        if name == "flow":
            _run([sys.executable, "-m", "flows.train"], workspace, environment)
        else:
            _bare(workspace, environment)
        seconds[name] = round(time.monotonic() - started, 1)
    ratio = round(seconds["flow"] / seconds["bare"], 3)
    command = f"python -m perf.flow_overhead --work DIR --profile {profile}"
    figures = {"command": command, "cores": os.cpu_count(), "seconds": seconds, "ratio": ratio}
    print(json.dumps(figures))
    artifacts.write_json(ROOT / "docs" / "results" / "flow-overhead.json", figures)


if __name__ == "__main__":
    main()
