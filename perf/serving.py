"""Speed and steadiness of `gapbridge serve`: `python -m perf.serving --work DIR [--model DIR]`.

Serves a model from a registry of its own, as a process beside the clients on the same machine: throughput and latency
at 1, 8 and 32 clients, memory before and after 2,000 requests, and requests that failed while the alias moved. Each
request has a picture of its own and another question than the one before; an answer is at most 8 tokens long. Without
--model it is a random one of the shape that params.yaml trains. Writes docs/results/serving.json.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gapbridge import artifacts
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.probe import write_probe
from gapbridge.mirror import open_store
from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, save
from gapbridge.model.vision import build_tower
from gapbridge.model_package import register
from gapbridge.params import load_params
from gapbridge.train import contrastive, language
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = {1: 200, 8: 600, 32: 1200}
"""Requests in all for so many clients."""
MEMORY_REQUESTS = 2000
ANSWER_TOKENS = 8
_QUESTIONS = ["what color is the circle", "where is the blue ring", "is there a red square", "describe the picture"]
_PICTURES = 64
_SWITCHES = 4


def random_model(folder: Path) -> None:
    """The model that params.yaml trains, untrained."""
    import torch

    params = load_params(ROOT / "params.yaml")
    words = train_tokenizer(_QUESTIONS * 5, params.llm.vocabulary_size)
    torch.manual_seed(0)
    shape = language.Architecture(
        params.llm.hidden_size, params.llm.intermediate_size, tuple(params.llm.layers), params.llm.attention_heads,
        params.llm.conv_kernel, params.llm.vocabulary_size,
    )  # fmt: skip
    model = language.build(shape, words, 0)
    settings = params.encoder
    eyes = contrastive.Architecture(
        settings.width, settings.image_size, settings.context_length, settings.vocabulary_size, settings.logit_scale
    )
    tower = ImageTower(build_tower(eyes.model_cfg()).eval(), eyes.model_cfg(), eyes.preprocess_cfg())
    cap = ImageCap(np.zeros(settings.width), np.full(settings.width, 0.05))
    adapter = AdapterShape(**params.pretrain.adapter.model_dump())
    whole = assemble(model, words.convert_tokens_to_ids(IMAGE_TOKEN), tower, adapter, cap, seed=0)
    processor = make_processor(words, tower, adapter.visual_tokens, IMAGE_TOKEN)
    save(whole, processor, Prompter(words).end_id, folder)


def prepare(work: Path, model: Path) -> None:
    """A registry with the model in it twice, each with a probe."""
    for name in ("dvc.lock", "params.yaml", "card.md"):
        (work / name).write_text("gallery: 1\n")
    picture = Image.fromarray(_pixels(0))
    probe = write_probe(work, Predictor.load(model), [picture] * 4, _QUESTIONS, ANSWER_TOKENS)
    for _ in range(2):
        register(work, "perf", model, work / "card.md", probe)
    (work / "params.yaml").unlink()
    promote(work, 1)


def promote(work: Path, number: int) -> None:
    """Move the alias."""
    with open_store(work) as (client, _):
        client.set_registered_model_alias("perf", "champion", str(number))


@contextmanager
def service(work: Path) -> Iterator[tuple[int, int]]:
    """A running service: the id of its process and its port."""
    command = [sys.executable, "-m", "gapbridge.cli", "serve", "perf@champion", "--port", "0", "--poll-seconds", "1"]
    own = {"GAPBRIDGE_CACHE": str(work / "cache"), "MLFLOW_TRACKING_URI": ""}
    with subprocess.Popen(command, cwd=work, env={**os.environ, **own}, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in process.stderr)))
            yield process.pid, int(found.group(1))
        finally:
            process.terminate()
            process.wait(60)


class Client:
    """One connection that asks one request after the other, as cheaply as can be: it shares the cores."""

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        self._port, self._bodies = port, bodies

    async def ask(self, numbers: Iterator[int], seconds: list[float], failures: list[str]) -> None:
        """Ask until `numbers` are used up; each answer's time, or what was wrong with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for number in numbers:
            started = time.perf_counter()
            writer.write(self._bodies[number % len(self._bodies)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head).group(1))  # type: ignore[union-attr]
            content = await reader.readexactly(length)
            seconds.append(time.perf_counter() - started)
            if not head.startswith(b"HTTP/1.1 200") or not json.loads(content)["choices"]:
                failures.append(head.decode() + content.decode())
        writer.close()


def load(port: int, clients: int, numbers: Iterator[int]) -> dict[str, Any]:
    """So many clients at once until `numbers` are used up."""
    seconds: list[float] = []
    failures: list[str] = []
    client = Client(port, requests())

    async def ask_all() -> None:
        await asyncio.gather(*(client.ask(numbers, seconds, failures) for _ in range(clients)))

    started = time.perf_counter()
    asyncio.run(ask_all())
    took = time.perf_counter() - started
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {
        "requests": len(seconds),
        "failed": len(failures),
        "requests_per_second": round(len(seconds) / took, 1),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
    }


def requests() -> list[bytes]:
    """Whole requests, every one about another picture than the last."""
    found = []
    for number in range(_PICTURES):
        content = io.BytesIO()
        Image.fromarray(_pixels(number)).save(content, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
        question = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": _QUESTIONS[number % len(_QUESTIONS)]},
        ]
        body = json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": ANSWER_TOKENS}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        found.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


def switching(work: Path, port: int) -> dict[str, Any]:
    """Eight clients while the alias moves; every move is waited for."""
    going = True

    def numbers() -> Iterator[int]:
        number = 0
        while going:
            yield number
            number += 1

    async def both() -> dict[str, Any]:
        nonlocal going
        under_load = asyncio.create_task(asyncio.to_thread(load, port, 8, numbers()))
        for move in range(_SWITCHES):
            wanted = 2 - move % 2
            await asyncio.to_thread(promote, work, wanted)
            while f'"version":"{wanted}"' not in await asyncio.to_thread(_ready, port):
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)
        going = False
        return await under_load

    return {"switches": _SWITCHES, "clients": 8, **asyncio.run(both())}


def _ready(port: int) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/readyz") as response:
        return response.read().decode()


def _pixels(number: int) -> np.ndarray:
    tiles = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return tiles.repeat(16, 0).repeat(16, 1)


def _resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024, 1)  # type: ignore[union-attr]


def main() -> None:
    """Print the figures and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--model", type=Path, help="a model directory")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if arguments.model is None:
        random_model(work / "model")
    prepare(work, arguments.model or work / "model")
    figures: dict[str, Any] = {
        "command": "python -m perf.serving --work DIR" + (" --model DIR" if arguments.model else ""),
        "model": "given" if arguments.model else "random, of the shape that params.yaml trains",
        "cores": os.cpu_count(),
        "answer_tokens": ANSWER_TOKENS,
    }
    with service(work) as (process, port):
        load(port, 8, iter(range(200)))
        figures["clients"] = {
            str(clients): load(port, clients, iter(range(count))) for clients, count in CLIENTS.items()
        }
        before = _resident_mib(process)
        asked = load(port, 8, iter(range(MEMORY_REQUESTS)))
        after = _resident_mib(process)
        figures["memory"] = {"before_mib": before, "after_mib": after, "requests": asked["requests"]}
        figures["alias_switch"] = switching(work, port)
    print(json.dumps(figures, indent=1))
    artifacts.write_json(ROOT / "docs" / "results" / "serving.json", figures)


if __name__ == "__main__":
    main()
