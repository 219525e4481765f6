"""Requests remembered as vectors of their pictures, never as pictures or words: enough for `gapbridge drift`.

Shapes: `b` rows, `d` width.
"""

import fcntl
import hashlib
import logging
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gapbridge.embeddings.shards import append_shard
from gapbridge.errors import ArtifactError, InputError

_log = logging.getLogger(__name__)
_PIECE_ROWS = 1024
_PIECE_SECONDS = 300.0
_NAME_CHARACTERS = 12


class VectorLog:
    """Writes shards in a folder for each encoder, piece by piece; what a killed process had not written is lost."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where the folder cannot be written, or another service writes there."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
        except OSError as error:
            raise InputError(
                f"--log-embeddings {folder}: cannot be written ({error.strerror}); name another"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise InputError(f"--log-embeddings {folder}: another service writes there; name another") from error
        self._rows: list[np.ndarray] = []
        self._fingerprint = ""
        self._written_at = time.monotonic()
        self.lost = 0
        """Rows that could not be written."""

    def add(self, vectors: np.ndarray, fingerprint: str) -> None:
        """Remember unit vectors (b, d) of pictures, of the encoder with that fingerprint."""
        if self._rows and fingerprint != self._fingerprint:
            self.flush()
        self._fingerprint = fingerprint
        self._rows.extend(vectors.astype(np.float16))
        if len(self._rows) >= _PIECE_ROWS or time.monotonic() - self._written_at > _PIECE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not yet written; a failure is logged and counted, and stops no answer."""
        rows, self._rows, self._written_at = self._rows, [], time.monotonic()
        if not rows:
            return
        folder = self._folder / self._fingerprint[:_NAME_CHARACTERS]
        ids = [secrets.token_hex(16) for _ in rows]
        try:
            append_shard(folder, ids, np.stack(rows).astype(np.float32), self._fingerprint, _groups(rows))
        except (OSError, ArtifactError) as error:
            self.lost += len(rows)
            _log.error("%d embeddings were not written: %s", len(rows), " ".join(str(error).split()))

    def close(self) -> None:
        """Write the rest, and let another service write there."""
        self.flush()
        self._lock.close()


def _groups(rows: Sequence[np.ndarray]) -> list[str]:
    """The same for the same picture, so that one that is asked about often does not count as many."""
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]
