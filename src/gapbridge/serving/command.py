"""`gapbridge serve`: its options, each with a variable of the same name behind GAPBRIDGE_SERVE_."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from gapbridge.params import load_params
from gapbridge.registry import Registry
from gapbridge.serving.settings import Settings, require_token_elsewhere
from gapbridge.serving.sources import AliasSource, FolderSource, wait_for_version
from gapbridge.stages.runner import cache_root

TOKEN_VARIABLE = "GAPBRIDGE_SERVE_TOKEN"
_DEFAULTS = {field.name: field.default for field in fields(Settings)}
_Command = TypeVar("_Command", bound=Callable[..., Any])
_COUNT, _SECONDS = click.IntRange(1), click.FloatRange(0, min_open=True)


def _option(name: str, kind: Any, purpose: str) -> Callable[[_Command], _Command]:
    flag = "--" + name.replace("_", "-")
    return click.option(flag, type=kind, default=_DEFAULTS[name], show_default=True, help=purpose)


@click.command(
    "serve", context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GAPBRIDGE_SERVE"}
)
@click.argument("registered", metavar="[MODEL@ALIAS]", required=False, envvar="GAPBRIDGE_SERVE_REGISTERED")
@click.option("--model", type=click.Path(path_type=Path), help="Serve a model directory instead.")
@_option("host", str, "Where to listen; anything but this machine needs a token.")
@_option("port", click.IntRange(0, 65535), "0 takes a free one.")
@_option("max_body_bytes", _COUNT, "Of a request.")
@_option("max_image_pixels", _COUNT, "Of a picture, known before it is decoded.")
@_option("max_prompt_tokens", _COUNT, "Of a chat, visual tokens included.")
@_option("max_answer_tokens", _COUNT, "An answer ends there, whatever the client asks for.")
@_option("max_requests", _COUNT, "Chats at once, waiting or answered; one more gets status 429.")
@_option("read_seconds", _SECONDS, "For a request's head, and again for its body.")
@_option("answer_seconds", _SECONDS, "From a request's end to the end of its answer.")
@_option("batch_size", _COUNT, "Chats that are answered together.")
@_option("gather_seconds", click.FloatRange(0, 1), "How long a batch waits for more chats.")
@_option("threads", _COUNT, "Of the model, on a CPU.")
@_option("poll_seconds", _SECONDS, "Between two looks at the alias.")
@_option("min_probe_agreement", click.FloatRange(0, 1), "Share of the probe's answers that a model must give again.")
@click.option("--log-embeddings", type=click.Path(path_type=Path), help="Keep the vectors of pictures in this folder.")
@click.option("--wait", is_flag=True, help="Until the registry answers and the alias names a version.")
def serve(registered: str | None, model: Path | None, wait: bool, **options: Any) -> None:
    """Serve a registered model, MODEL@ALIAS: an OpenAI-compatible API, a chat page, metrics.

    MODEL is report.register_as of params.yaml, or the only registered one, unless it is given; ALIAS is champion. A
    version that is promoted takes over while the service runs. The token that clients need is read from
    GAPBRIDGE_SERVE_TOKEN.
    """
    if registered and model:
        raise click.UsageError("give MODEL@ALIAS or --model DIR, not both")
    settings = Settings(token=os.environ.get(TOKEN_VARIABLE), **options)
    require_token_elsewhere(settings)
    source = FolderSource(model) if model else _alias(Path.cwd(), registered)
    if wait:
        wait_for_version(source, settings.poll_seconds)
    from gapbridge.serving.server import serve as run  # brings torch

    run(settings, source)


def _alias(workspace: Path, registered: str | None) -> AliasSource:
    path = workspace / "params.yaml"
    default_name = None if registered or not path.exists() else load_params(path).report.register_as
    return AliasSource(Registry(workspace), registered, default_name, cache_root() / "models")
