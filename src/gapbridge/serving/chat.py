"""What `/v1/chat/completions` understands: a chat about one picture, checked and brought into the model's form."""

import base64
import binascii
import io
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gapbridge.corpus.pictures import BadPictureError, decode
from gapbridge.serving.refusals import RefusalError, invalid

MAX_MESSAGES = 64
MAX_PARTS = 64
"""Of one message."""
MIN_IMAGE_SIDE = 4
_SHOWN_CHARACTERS = 300
# What may be said of these, since it changes nothing; null may be said of anything.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "stop": ([],),
    "logprobs": (False,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)


# Beyond it a list is not looked at: a body of millions of wrong parts would make as many errors, which take gigabytes.
_FEW = Field(max_length=MAX_PARTS)


class _Text(BaseModel):
    type: Literal["text"]
    text: str


class _Address(BaseModel):
    url: str


class _Picture(BaseModel):
    type: Literal["image_url"]
    image_url: _Address


class _Question(BaseModel):
    role: Literal["user"]
    content: str | Annotated[list[Annotated[_Text | _Picture, Field(discriminator="type")]], _FEW]


class _Answer(BaseModel):
    role: Literal["assistant"]
    content: str | Annotated[list[_Text], _FEW]


class _StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body; parameters that it does not name are refused unless they change nothing (docs/serving.md)."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: list[Annotated[_Question | _Answer, Field(discriminator="role")]] = Field(max_length=MAX_MESSAGES)
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    seed: int | None = None

    @property
    def answer_tokens(self) -> int | None:
        """How long the answer may be, where the client says so."""
        return self.max_completion_tokens or self.max_tokens


@dataclass(frozen=True)
class Conversation:
    """A picture, the turns about it so far, and the question that is open."""

    picture: Image.Image
    history: tuple[tuple[str, str], ...]
    question: str

    @property
    def characters(self) -> int:
        """Of all words in it."""
        return len(self.question) + sum(len(text) for turn in self.history for text in turn)


def parse(body: bytes) -> ChatRequest:
    """The request in `body`. Raises RefusalError where it is no JSON, too deep, or says what is not done here."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from error
    for name, value in (request.model_extra or {}).items():
        shown = name[:_SHOWN_CHARACTERS]
        if name not in _IGNORED and name not in _NEUTRAL:
            raise invalid("unknown_parameter", f"{shown}: no such parameter; leave it out")
        if name in _NEUTRAL and value is not None and value not in _NEUTRAL[name]:
            raise invalid("unsupported_parameter", f"{shown}: not supported by this service; leave it out")
    return request


def conversation(request: ChatRequest, max_image_pixels: int) -> Conversation:
    """The chat in `request` with its picture decoded.

    Raises RefusalError unless user and assistant take turns, the first message has the one picture, and all have words.
    """
    messages = request.messages
    if not messages or any(message.role != ("user", "assistant")[n % 2] for n, message in enumerate(messages)):
        raise invalid("invalid_messages", "messages: user and assistant take turns, the user first; mend their order")
    if messages[-1].role != "user":
        raise invalid("invalid_messages", "messages: the last one must be the user's; add the question")
    texts = [_words(message, f"messages.{n}") for n, message in enumerate(messages)]
    address = _only_address(messages)
    turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Conversation(_decoded(address, max_image_pixels), turns, texts[-1])


def _words(message: _Question | _Answer, where: str) -> str:
    parts = message.content
    text = parts if isinstance(parts, str) else "\n".join(part.text for part in parts if isinstance(part, _Text))
    if not text.strip():
        raise invalid("invalid_messages", f"{where}: has no words; ask something about the picture")
    return text


def _only_address(messages: list[_Question | _Answer]) -> str:
    found = [
        (place, part.image_url.url)
        for place, message in enumerate(messages)
        for part in (message.content if isinstance(message.content, list) else [])
        if isinstance(part, _Picture)
    ]
    if not found:
        raise invalid("image_required", "messages: no picture; the model answers about one, send it as an image_url")
    if len(found) > 1 or found[0][0] != 0:
        raise invalid(
            "invalid_image", "messages: the model reads one picture, in the first message; send one chat each"
        )
    return found[0][1]


def _decoded(address: str, max_pixels: int) -> Image.Image:
    head, comma, payload = address.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise invalid("invalid_image", "image_url: must be data:image/…;base64,…; nothing is fetched from elsewhere")
    try:
        content = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("invalid_image", "image_url: is not base64; encode the picture's file again") from error
    try:
        picture = decode(io.BytesIO(content), max_pixels)
    except BadPictureError as error:
        raise invalid("invalid_image", f"image_url: {error}; send a PNG, JPEG or WebP file") from error
    if min(picture.size) < MIN_IMAGE_SIDE:
        raise invalid("invalid_image", f"image_url: a side is shorter than {MIN_IMAGE_SIDE} pixels; send a larger one")
    return picture


def _explained(error: ValidationError) -> RefusalError:
    """One error in words, without what the client sent: the one farthest inside, where unions give several."""
    details = max(error.errors(include_url=False, include_context=False, include_input=False), key=_telling)
    if details["type"] == "json_invalid":
        return invalid("invalid_json", f"the body is not usable JSON: {details['msg'][:_SHOWN_CHARACTERS]}")
    where = ".".join(map(str, details["loc"]))[:_SHOWN_CHARACTERS]
    return invalid("invalid_request", f"{where or 'the body'}: {details['msg'][:_SHOWN_CHARACTERS]}")


def _telling(details: Any) -> tuple[int, bool]:
    return len(details["loc"]), details["type"] == "too_long"
