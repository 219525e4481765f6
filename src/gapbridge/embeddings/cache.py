"""Vectors remembered across runs and workspaces, by encoder and by what was encoded.

A folder an encoder holds blocks of a few thousand vectors; a block is one file, written whole under the name of
its own digest, so that several processes may add at once and a killed one loses only the block it was filling.
Shapes: `n` rows, `d` width.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from gapbridge import artifacts
from gapbridge.errors import ArtifactError

KEY = np.dtype("S32")
"""A sha256 as 32 bytes; numpy ignores trailing zero bytes in comparing, which changes nothing at equal length."""


def content_keys(kind: str, contents: Iterable[str]) -> np.ndarray:
    """Keys (n,) of contents: texts as they are, or the digests that stand for pictures; `kind` keeps them apart."""
    digests = [hashlib.sha256(f"{kind}:{content}".encode()).digest() for content in contents]
    return np.array(digests, dtype=KEY)


class VectorCache:
    """The float16 vectors (n, d) of one encoder, found by key. What other processes add is seen after `refresh`."""

    def __init__(self, root: Path, fingerprint: str, width: int) -> None:
        """`root` is the cache's folder, shared by all encoders; `fingerprint` names the encoder."""
        self.folder = root / "vectors" / fingerprint
        self.width = width
        self._keys = np.empty(0, dtype=KEY)
        self._where = np.empty((0, 2), dtype=np.int64)
        self._blocks: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in the blocks that appeared since the last look."""
        known = set(self._blocks)
        for path in sorted(self.folder.glob("block-*.safetensors")):
            if path not in known:
                self._index(path, self._read(path, "keys").reshape(-1).view(KEY))

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the keys without a vector."""
        return self._find(keys) < 0

    def append(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Remember `rows` (n, d) under `keys` (n,), all in one block. Raises ArtifactError for NaN or infinity."""
        if rows.shape != (len(keys), self.width):
            raise ArtifactError(f"encoder: gave vectors of shape {rows.shape}, expected {(len(keys), self.width)}")
        if not np.isfinite(rows).all():
            raise ArtifactError("encoder: gave a vector that holds NaN or infinity; check its weights")
        keys_as_bytes = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), KEY.itemsize)
        block = safetensors.numpy.save({"keys": keys_as_bytes, "rows": np.ascontiguousarray(rows, dtype=np.float16)})
        path = self.folder / f"block-{hashlib.sha256(block).hexdigest()[:32]}.safetensors"
        artifacts.write_bytes(path, block)
        if path not in self._blocks:
            self._index(path, keys)

    def read(self, keys: np.ndarray) -> np.ndarray:
        """float16 vectors (n, d) of `keys` (n,), in their order. Raises ArtifactError where one is missing."""
        found = self._find(keys)
        if (found < 0).any():
            raise ArtifactError(f"{self.folder}: {int((found < 0).sum())} vectors are missing; run the stage again")
        where = self._where[found]
        result = np.empty((len(keys), self.width), dtype=np.float16)
        for block in np.unique(where[:, 0]):
            here = np.flatnonzero(where[:, 0] == block)
            result[here] = self._read(self._blocks[block], "rows")[where[here, 1]]
        return result

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Place of each key in the sorted index, −1 where it is not there."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[place] == keys, place, -1)

    def _index(self, path: Path, keys: np.ndarray) -> None:
        """Add a block's keys; of a key that two blocks hold, the first one known stays."""
        where = np.stack([np.full(len(keys), len(self._blocks)), np.arange(len(keys))], axis=1)
        self._blocks.append(path)
        everything = np.concatenate([self._keys, keys])
        self._keys, first = np.unique(everything, return_index=True)
        self._where = np.concatenate([self._where, where])[first]

    def _read(self, path: Path, name: str) -> np.ndarray:
        try:
            with safetensors.safe_open(path, framework="numpy") as block:
                tensor = block.get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise ArtifactError(f"{path}: a damaged block of cached vectors ({error}); delete it") from error
        if name == "rows" and tensor.shape[1] != self.width:
            raise ArtifactError(f"{path}: vectors of width {tensor.shape[1]}, expected {self.width}; delete it")
        return tensor
