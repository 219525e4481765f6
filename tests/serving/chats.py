"""Tiny models, pictures and chats, and a service that runs in a thread."""

import base64
import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image
from safetensors.torch import load_file, save_file

from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor
from gapbridge.serving.server import server_config
from gapbridge.serving.settings import Settings
from tests.evaluate.tiny import QUESTIONS, save_model

CHAT = "/v1/chat/completions"


def save_seeing(folder: Path, changed: bool = False) -> None:
    """A model whose adapter is calibrated to the pictures below, so that they matter; or one that answers otherwise."""
    save_model(folder)
    predictor = Predictor.load(folder)
    pixels = predictor.pictured([picture(number) for number in range(8)])(list(range(8)))["pixel_values"]
    vectors = predictor.model.model.vision_tower(pixels).pooler_output.detach()
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    for name in tensors:
        if name.endswith("image_mean"):
            tensors[name] = vectors.mean(0)
        elif name.endswith("image_scale"):
            tensors[name] = vectors.std(0).mean()
        elif changed and name.endswith("lm_head.weight"):
            tensors[name] = tensors[name].roll(1, 0).contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})


def picture(number: int, size: tuple[int, int] = (52, 40)) -> Image.Image:
    """Noise of its own for every number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*reversed(size), 3), dtype=np.uint8))


def encoded(image: Image.Image, file_format: str = "PNG") -> bytes:
    """The picture's file."""
    content = io.BytesIO()
    image.save(content, file_format)
    return content.getvalue()


def address(content: bytes, kind: str = "image/png") -> str:
    """A data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def first_message(number: int = 0, question: str = QUESTIONS[0], url: str | None = None) -> dict[str, Any]:
    """A question about that picture."""
    image = {"type": "image_url", "image_url": {"url": url or address(encoded(picture(number)))}}
    return {"role": "user", "content": [image, {"type": "text", "text": question}]}


def chat(number: int = 0, question: str = QUESTIONS[0], **others: Any) -> dict[str, Any]:
    """A whole request of one question."""
    return {"messages": [first_message(number, question)], "max_tokens": 8, **others}


@contextlib.contextmanager
def running(app: FastAPI, settings: Settings) -> Iterator[str]:
    """The service on a free port of this machine, in a thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def benchmark_answer(predictor: Predictor, question: str, shown: Image.Image, max_new_tokens: int = 8) -> str:
    """What the benchmarks would hear from the model."""
    (answer,) = predictor.answers([Request("it", question, 0, max_new_tokens)], predictor.pictured([shown]), label=None)
    return answer
