"""Pictures of the pages for docs/operations.md: `python -m perf.screenshots --model NAME --chat URL --picture FILE`.

Takes the addresses of Prefect and MLflow from the environment (`.stack/env`), starts no service, changes nothing. There
must be a completed run of train with cached stages, a registered version of NAME, and `gapbridge serve` at --chat.
Writes docs/images/operations-*.png with few colours, each of at most 150 kB.
"""

import argparse
import io
import json
import os
import tempfile
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.serving.browser import Page, open_browser

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MAX_BYTES = 150_000
QUIET_SECONDS = 4
"""Pages draw a while after they have loaded."""
_COLORS = 128


def ask(address: str, content: dict[str, Any] | None = None) -> Any:
    """What an API answers; POST where there is content."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def cached_run(api: str) -> str:
    """The id of the newest completed run of train with a cached stage."""
    query = {
        "flows": {"name": {"any_": ["train"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        "task_runs": {"state": {"name": {"any_": ["Cached"]}}},
        "sort": "START_TIME_DESC",
        "limit": 1,
    }
    (run,) = ask(f"{api}/flow_runs/filter", query)
    return run["id"]


def training_run(mlflow: str) -> tuple[str, str]:
    """Experiment and run of the newest stage pretrain, whose losses are curves."""
    experiment = ask(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gapbridge")["experiment"]
    query = {
        "experiment_ids": [experiment["experiment_id"]],
        "filter": "attributes.run_name = 'pretrain' AND attributes.status = 'FINISHED' AND metrics.heldout_loss > 0",
        "order_by": ["attributes.start_time DESC"],
        "max_results": 1,
    }
    (run,) = ask(f"{mlflow}/api/2.0/mlflow/runs/search", query)["runs"]
    return experiment["experiment_id"], run["info"]["run_id"]


def click(page: Page, selector: str, text: str) -> None:
    """Click the first element of that selector whose text begins with `text`."""
    found = f"[...document.querySelectorAll({json.dumps(selector)})]"
    wanted = f"{found}.find(one => one.textContent.trim().startsWith({json.dumps(text)}))"
    page.until(f"Boolean({wanted})")
    page.run(f"{wanted}.click()")


def show(page: Page, address: str, text: str, width: int, height: int) -> None:
    """Open an address and wait until the page shows `text`, and then until it has drawn itself."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=address)
    page.until(f"document.body?.innerText.includes({json.dumps(text)})")
    time.sleep(QUIET_SECONDS)


def take(page: Page, name: str) -> None:
    """Write what the page shows to docs/images/operations-NAME.png."""
    shot = Image.open(io.BytesIO(b64decode(page.call("Page.captureScreenshot", format="png")["data"])))
    few = shot.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
    content = io.BytesIO()
    few.save(content, "PNG", optimize=True)
    assert content.tell() <= MAX_BYTES, f"{name}: {content.tell()} bytes"
    (IMAGES / f"operations-{name}.png").write_bytes(content.getvalue())
    print(f"operations-{name}.png  {content.tell() // 1000} kB")


def take_prefect(page: Page, api: str) -> None:
    """A flow run with cached stages, and the deployments."""
    pages = api.removesuffix("/api")
    show(page, f"{pages}/runs/flow-run/{cached_run(api)}", "Task Runs", 1280, 1320)
    click(page, "[role=tab], .p-tab, button", "Task Runs")
    page.until("document.body.innerText.includes('Cached')")
    time.sleep(QUIET_SECONDS)
    take(page, "flow-run")
    show(page, f"{pages}/deployments", "weekly", 1680, 700)
    take(page, "deployments")


def take_mlflow(page: Page, mlflow: str, model: str) -> None:
    """The run of a stage that trains, its curves, and a registered model."""
    experiment, run = training_run(mlflow)
    show(page, f"{mlflow}/#/experiments/{experiment}/runs/{run}/model-metrics", "loss", 1280, 640)
    page.run("document.querySelector('button[aria-label=Close]')?.click()")  # a panel beside every page at first
    page.write("input[placeholder^=Search]", "^(loss|heldout_loss|learning_rate)")
    time.sleep(QUIET_SECONDS)
    take(page, "mlflow-run")
    show(page, f"{mlflow}/#/models/{model}", "champion", 1500, 1060)
    take(page, "registry")


def take_chat(page: Page, chat: str, picture: Path, questions: list[str]) -> None:
    """Questions about a picture, answered."""
    show(page, f"{chat}/", "@champion", 900, 620)
    page.choose("#file", picture)
    page.until("document.getElementById('preview').naturalWidth > 0")
    for number, question in enumerate(questions, start=1):
        page.write("#question", question)
        page.press_enter()
        page.until(f"document.querySelectorAll('#turns .assistant:not(.waiting)').length === {number}")
    time.sleep(1)
    take(page, "chat")


def main() -> None:
    """Take all of them, or those of --only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--chat", default="http://127.0.0.1:8000")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--question", action="append", default=[])
    parser.add_argument("--only", choices=("prefect", "mlflow", "chat"), action="append")
    arguments = parser.parse_args()
    api, mlflow = os.environ["PREFECT_API_URL"], os.environ["MLFLOW_TRACKING_URI"]
    taken: dict[str, Callable[[Page], None]] = {
        "prefect": lambda page: take_prefect(page, api),
        "mlflow": lambda page: take_mlflow(page, mlflow, arguments.model),
        "chat": lambda page: take_chat(page, arguments.chat, arguments.picture.resolve(), arguments.question),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, open_browser(Path(profile)) as page:
        for name in arguments.only or taken:
            taken[name](page)


if __name__ == "__main__":
    main()
