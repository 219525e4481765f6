"""Records to shards: each distinct content is encoded once, through the cache, in batches of one size.

What is missing is encoded in order of first appearance and remembered block by block, so that a killed run goes
on from its last whole block and the shards come out the same.
Shapes: `n` records, `d` width, `b` rows of one batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gapbridge.embeddings.cache import VectorCache, content_keys
from gapbridge.embeddings.shards import Batch, Shards, write_shards
from gapbridge.errors import ArtifactError

if TYPE_CHECKING:
    from PIL.Image import Image

    from gapbridge.embeddings.encoders import Encoder

BLOCK_ROWS = 2048
"""About as many vectors as a block of the cache holds: the most that a killed run loses."""
_READ_ROWS = 16_384


@dataclass(frozen=True)
class Encoding:
    """How contents are encoded and where vectors are kept."""

    cache_root: Path
    batch_size: int
    """Contents the encoder is given at once."""
    shard_rows: int

    @property
    def block_rows(self) -> int:
        """Rows of a block of the cache: whole batches, at least one, no more than a shard where that can be."""
        return max(1, min(BLOCK_ROWS, self.shard_rows) // self.batch_size) * self.batch_size


@dataclass(frozen=True)
class Records:
    """What is embedded: ids, groups, and a content for each record, (n,) each.

    A content is the text itself, or the digest of a picture's file; records of one content share a vector.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    contents: Sequence[str]


def embed_texts(encoder: "Encoder", records: Records, folder: Path, encoding: Encoding) -> dict[str, int]:
    """Write the shards of `records`' texts into `folder`.

    Returns `rows`, `distinct` texts, and how many of these `truncated` lost their end to the context length.
    Raises ArtifactError where the encoder gives NaN or vectors of another width.
    """
    texts = list(dict.fromkeys(records.contents))
    truncated = sum(encoder.truncated(texts[start:stop]) for start, stop in _spans(len(texts), encoding.block_rows))

    def encode(places: Sequence[int]) -> np.ndarray:
        return encoder.encode_texts([texts[place] for place in places])

    shards = _embed("text", texts, encode, encoder, records, folder, encoding)
    return {"rows": shards.rows, "distinct": len(texts), "truncated": int(truncated)}


def embed_images(
    encoder: "Encoder", records: Records, load: Callable[[int], "Image"], folder: Path, encoding: Encoding
) -> dict[str, int]:
    """Write the shards of `records`' pictures into `folder`; `load(i)` opens the picture of record i.

    A picture is opened only when its digest is not in the cache. Returns `rows` and `distinct` pictures.
    Raises ArtifactError where the encoder gives NaN or vectors of another width.
    """
    digests = list(dict.fromkeys(records.contents))
    first_record = {digest: i for i, digest in reversed(list(enumerate(records.contents)))}

    def encode(places: Sequence[int]) -> np.ndarray:
        return encoder.encode_images([load(first_record[digests[place]]) for place in places])

    shards = _embed("image", digests, encode, encoder, records, folder, encoding)
    return {"rows": shards.rows, "distinct": len(digests)}


def _embed(
    kind: str,
    distinct: Sequence[str],
    encode: Callable[[Sequence[int]], np.ndarray],
    encoder: "Encoder",
    records: Records,
    folder: Path,
    encoding: Encoding,
) -> Shards:
    """Fill the cache with what it lacks of `distinct`, then write the records' shards from it."""
    cache = VectorCache(encoding.cache_root, encoder.fingerprint, encoder.width)
    keys = content_keys(kind, distinct)
    _fill(cache, keys, encode, encoding, f"{kind}s")
    key_of = dict(zip(distinct, keys, strict=True))
    wanted = np.array([key_of[content] for content in records.contents], dtype=keys.dtype)
    batches = _cached(cache, records.ids, wanted)
    return write_shards(folder, batches, encoder.fingerprint, encoding.shard_rows, records.groups)


def _fill(
    cache: VectorCache, keys: np.ndarray, encode: Callable[[Sequence[int]], np.ndarray], encoding: Encoding, label: str
) -> None:
    """Encode what the cache lacks; one block is added when it is whole."""
    missing = np.flatnonzero(cache.missing(keys))
    known = len(keys) - len(missing)
    with tqdm(total=len(keys), initial=known, desc=f"embed {label}", unit="row", mininterval=0.5) as progress:
        for start, stop in _spans(len(missing), encoding.block_rows):
            block = missing[start:stop]
            parts = []
            for first, last in _spans(len(block), encoding.batch_size):
                parts.append(_checked(encode(block[first:last].tolist()), last - first, cache.width))
                progress.update(last - first)
            cache.append(keys[block], np.concatenate(parts))


def _checked(rows: Any, count: int, width: int) -> np.ndarray:
    """The encoder's answer, provided that it is what was asked for; a batch with NaN stops before its block ends."""
    rows = np.asarray(rows)
    if rows.shape != (count, width):
        raise ArtifactError(f"encoder: gave vectors of shape {rows.shape}, expected {(count, width)}; check its files")
    if not np.isfinite(rows).all():
        raise ArtifactError("encoder: gave a vector that holds NaN or infinity; check its weights")
    return rows


def _cached(cache: VectorCache, ids: Sequence[str], keys: np.ndarray) -> Iterator[Batch]:
    for start, stop in _spans(len(ids), _READ_ROWS):
        yield ids[start:stop], cache.read(keys[start:stop])


def _spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) that cover `total` in pieces of `size`."""
    for start in range(0, total, size):
        yield start, min(start + size, total)
