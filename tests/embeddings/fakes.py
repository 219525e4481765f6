"""Encoders whose vectors follow from the content alone, so that a test knows each one."""

import hashlib

import numpy as np
from PIL.Image import Image


class FakeEncoder:
    """Vectors by hash of the content; remembers the batches it was given and may break at one of them."""

    context_length = 12

    def __init__(self, width: int = 8, fingerprint: str = "fake", break_at: int | None = None) -> None:
        self.width, self.fingerprint, self.break_at = width, fingerprint, break_at
        self.batches: list[int] = []

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return self._encode([text.encode() for text in texts])

    def pixels(self, image: Image) -> bytes:
        return image.tobytes()

    def encode_pixels(self, pixels: list[bytes]) -> np.ndarray:
        return self._encode(pixels)

    def token_counts(self, texts: list[str]) -> list[int]:
        """A token a letter."""
        return [len(text) for text in texts]

    def vector(self, content: bytes) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        row = np.random.default_rng(seed).normal(size=self.width)
        return (row / np.linalg.norm(row)).astype(np.float32)

    def _encode(self, contents: list[bytes]) -> np.ndarray:
        if len(self.batches) == self.break_at:
            raise KeyboardInterrupt
        self.batches.append(len(contents))
        return np.stack([self.vector(content) for content in contents])
