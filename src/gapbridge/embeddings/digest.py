"""Digests worked out beside the work."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

_AHEAD = 2


class Digest:
    """A sha256 that a thread of its own works out, while the next bytes are read or made."""

    def __init__(self) -> None:
        self._sha256, self._thread = hashlib.sha256(), ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def update(self, content: bytes | memoryview) -> None:
        """Take in bytes, which nobody may change afterwards."""
        self._waiting.append(self._thread.submit(self._sha256.update, content))
        if len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def hexdigest(self) -> str:
        """The digest of all that was taken in; nothing can follow."""
        self._thread.shutdown()
        return self._sha256.hexdigest()
