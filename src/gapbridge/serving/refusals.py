"""Why a request is not answered, in the shape that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RefusalError(Exception):
    """A request that is not answered; `message` says what is wrong and what to do, `code` says it to programs."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


def invalid(code: str, message: str) -> RefusalError:
    """A request that can never be answered as it is: status 400."""
    return RefusalError(400, code, message)


def closing(status: int, code: str, message: str) -> RefusalError:
    """A request of which the rest is not read any more: its connection ends with the answer."""
    return RefusalError(status, code, message, {"Connection": "close"})
