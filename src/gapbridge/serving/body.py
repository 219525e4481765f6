"""A request's body: of the right kind, no larger than allowed, and sent in time."""

import asyncio

from starlette.requests import Request

from gapbridge.serving.refusals import RefusalError, closing


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The JSON text of `request`; its size is checked while it is read, whatever Content-Length says.

    Raises RefusalError with 415 for another type, 413 when it is too large, 408 when it takes longer than `seconds`.
    """
    _require_json(request)
    too_large = RefusalError(
        413, "request_too_large", f"the body is larger than {max_bytes} bytes; send a smaller picture"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError as error:
        raise closing(408, "request_timeout", f"the body did not arrive within {seconds:g} s; send it again") from error
    return bytes(body)


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusalError(415, "unsupported_media_type", "the body must be JSON; send Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusalError(415, "unsupported_media_type", "the body is compressed; send it as it is")
