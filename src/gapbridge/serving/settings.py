"""What whoever runs the service decides; every field is an option of `gapbridge serve`, with its reason there."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from gapbridge.errors import InputError

MAX_ANSWER_TOKENS = 256


@dataclass(frozen=True)
class Settings:
    """Where to listen, what to accept, and how to batch. Sizes in bytes or tokens, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    """The bearer token that clients need; from the environment alone."""
    max_body_bytes: int = 8 << 20
    max_image_pixels: int = 16_000_000
    max_prompt_tokens: int = 1024
    max_answer_tokens: int = MAX_ANSWER_TOKENS
    max_requests: int = 64
    """Read, waiting or answered at once; one more is told to come back."""
    read_seconds: float = 10.0
    """For the head of a request, and again for its body."""
    answer_seconds: float = 60.0
    batch_size: int = 16
    gather_seconds: float = 0.005
    """How long a batch waits for more requests before it starts."""
    threads: int = max(1, (os.cpu_count() or 2) - 1)
    """Of the model; a core is left to the web side."""
    poll_seconds: float = 15.0
    min_probe_agreement: float = 0.8
    """Share of the probe's answers that a model must give again."""
    log_embeddings: Path | None = None


def require_token_elsewhere(settings: Settings) -> None:
    """Raises InputError where others could reach the service and no token is set."""
    if settings.token is not None:
        if not settings.token.strip() or not settings.token.isprintable():
            raise InputError("GAPBRIDGE_SERVE_TOKEN: is blank or has unprintable characters; set another, or unset it")
        return
    try:
        is_local = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise InputError(f"--host {settings.host}: open to others; set GAPBRIDGE_SERVE_TOKEN first, or use 127.0.0.1")
