"""Records to shards: each distinct content is encoded once, through the cache, in batches of one size.

What is missing is encoded in blocks and remembered block by block, so that a killed run goes on from its last whole
block and the shards come out the same. Pictures are decoded by threads ahead of the encoder; the texts of a block go by
length. Several ranks share the blocks; the first one writes the shards when all are done.
Shapes: `n` records, `d` width, `b` rows of one batch.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gapbridge.embeddings.ahead import ahead
from gapbridge.embeddings.cache import VectorCache, content_keys
from gapbridge.embeddings.ranks import Ranks
from gapbridge.embeddings.shards import Batch, write_shards
from gapbridge.errors import ArtifactError

if TYPE_CHECKING:
    from PIL.Image import Image

    from gapbridge.embeddings.encoders import Encoder

BLOCK_ROWS = 2048
"""About as many vectors as a block of the cache holds: the most that a killed run loses."""
_READ_ROWS = 16_384
_MOST_THREADS = 16


@dataclass(frozen=True)
class Encoding:
    """How contents are encoded and where vectors are kept."""

    cache_root: Path
    batch_size: int
    """Contents the encoder is given at once."""
    shard_rows: int
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the work; all have the same records."""

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


@dataclass(frozen=True)
class _Contents:
    """The distinct contents of one modality, and how places among them become vectors."""

    kind: str
    distinct: Sequence[str]
    read: Callable[[Iterable[int]], Generator[Any, None, None]]
    """What the encoder takes of the contents at those places, in their order."""
    encode: Callable[[list[Any]], np.ndarray]
    lengths: np.ndarray
    """By which a block is sorted; where all are equal it keeps its order."""


def embed_texts(encoder: "Encoder", records: Records, folder: Path, encoding: Encoding) -> dict[str, int]:
    """Write the shards of `records`' texts into `folder`.

    Returns `rows`, `distinct` texts, and how many of these `truncated` lost their end to the context length.
    Raises ArtifactError where the encoder gives NaN or vectors of another width.
    """
    texts = list(dict.fromkeys(records.contents))
    spans = _spans(len(texts), encoding.block_rows)
    lengths = np.array([count for start, stop in spans for count in encoder.token_counts(texts[start:stop])], dtype=int)
    contents = _Contents(
        "text", texts, lambda places: (texts[place] for place in places), encoder.encode_texts, lengths
    )
    _embed(contents, encoder, records, folder, encoding)
    truncated = int((lengths > encoder.context_length).sum())
    return {"rows": len(records.ids), "distinct": len(texts), "truncated": truncated}


def embed_images(
    encoder: "Encoder", records: Records, load: Callable[[int], "Image"], folder: Path, encoding: Encoding
) -> dict[str, int]:
    """Write the shards of `records`' pictures into `folder`; `load(i)` opens the picture of record i, in any thread.

    A picture is opened only when its digest is not in the cache. Returns `rows` and `distinct` pictures.
    Raises ArtifactError where the encoder gives NaN or vectors of another width.
    """
    digests = list(dict.fromkeys(records.contents))
    first_record = {digest: i for i, digest in reversed(list(enumerate(records.contents)))}

    def pixels(place: int) -> Any:
        return encoder.pixels(load(first_record[digests[place]]))

    def read(places: Iterable[int]) -> Generator[Any, None, None]:
        return ahead(pixels, places, _decoding_threads(), 2 * encoding.batch_size)

    contents = _Contents("image", digests, read, encoder.encode_pixels, np.zeros(len(digests), int))
    _embed(contents, encoder, records, folder, encoding)
    return {"rows": len(records.ids), "distinct": len(digests)}


def _decoding_threads() -> int:
    """As many as this process has cores, shared with the other processes of torchrun on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _embed(contents: _Contents, encoder: "Encoder", records: Records, folder: Path, encoding: Encoding) -> None:
    """Fill the cache with what it lacks of the contents, then (the first rank) write the records' shards from it."""
    cache = VectorCache(encoding.cache_root, encoder.fingerprint, encoder.width)
    keys = content_keys(contents.kind, contents.distinct)
    _fill(cache, keys, contents, encoding)
    encoding.ranks.wait()
    if encoding.ranks.rank > 0:
        return
    cache.refresh()
    key_of = dict(zip(contents.distinct, keys, strict=True))
    wanted = np.array([key_of[content] for content in records.contents], dtype=keys.dtype)
    batches = _cached(cache, records.ids, wanted)
    write_shards(folder, batches, encoder.fingerprint, encoding.shard_rows, records.groups)


def _fill(cache: VectorCache, keys: np.ndarray, contents: _Contents, encoding: Encoding) -> None:
    """Encode this rank's part of what the cache lacks; one block is added when it is whole."""
    places = np.arange(len(keys))
    own = places[encoding.ranks.own(places // encoding.block_rows)]
    missing = own[cache.missing(keys[own])]
    blocks = [missing[start:stop] for start, stop in _spans(len(missing), encoding.block_rows)]
    blocks = [block[np.argsort(contents.lengths[block], kind="stable")] for block in blocks]
    progress_bar = tqdm(
        total=len(own), initial=len(own) - len(missing), desc=f"embed {contents.kind}s", unit="row", mininterval=0.5,
        disable=encoding.ranks.rank > 0,
    )  # fmt: skip
    with closing(contents.read(int(place) for block in blocks for place in block)) as ready, progress_bar as progress:
        for block in blocks:
            parts = []
            for first, last in _spans(len(block), encoding.batch_size):
                rows = contents.encode(list(islice(ready, last - first)))
                parts.append(_checked(rows, last - first, cache.width))
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
