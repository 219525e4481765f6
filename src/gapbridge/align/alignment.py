"""The frozen result of a fit: it moves text vectors to where image vectors lie, and lives in a small folder.

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gapbridge import artifacts
from gapbridge.align.methods import RECIPES
from gapbridge.align.rows import unit_rows
from gapbridge.errors import ArtifactError

FORMAT_VERSION = 1
SETTINGS_FILE = "alignment.json"
TENSORS_FILE = "alignment.safetensors"
_VECTORS = ("text_mean", "image_mean", "image_std", "drift_mean")


@dataclass(frozen=True, eq=False)
class Alignment:
    """What `fit` found, all in float64: the means, the scale, and what they were found from."""

    method: str
    text_mean: np.ndarray
    """(d,) mean of the unit texts."""
    image_mean: np.ndarray
    """(d,) mean of the unit images."""
    image_std: np.ndarray
    """(d,) standard deviation of the unit images; models scale their inputs by it."""
    drift_mean: np.ndarray | None
    """(d,) where the projection left the texts' centroid; None for methods that do not recentre."""
    scale: float
    text_trace: float
    image_trace: float
    text_count: int
    image_count: int
    text_off_unit: int = 0
    """Rows whose length was off one by more than the tolerance."""
    image_off_unit: int = 0
    fingerprint: str | None = None
    """Of the encoder that made the vectors, where it is known."""
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Digests of the shards that were read, by side."""

    @property
    def width(self) -> int:
        """Numbers in a vector, d."""
        return len(self.image_mean)

    def apply(self, rows: np.ndarray, row_ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Text vectors (n, d) moved to the image side: float32 unit rows (n, d).

        `row_ids` names the rows (n,): what a method does to a row may depend on its id, never on its batch.
        Raises ArtifactError for another width, or for rows that hold NaN.
        """
        if len(row_ids) != len(rows):
            raise ValueError(f"{len(rows)} rows with {len(row_ids)} ids")
        self.require(width=rows.shape[-1])
        return self.move(unit_rows(rows, "texts to align")[0]).astype(np.float32)

    def move(self, units: np.ndarray) -> np.ndarray:
        """The steps themselves on float64 unit rows (n, d), without rounding (arXiv 2602.07026 §4.2)."""
        if not RECIPES[self.method].anchors:
            return units
        moved = _project(self.image_mean + self.scale * (units - self.text_mean))
        if self.drift_mean is None:
            return moved
        return _project(moved - self.drift_mean + self.image_mean)

    def recentred(self, drift_mean: np.ndarray) -> "Alignment":
        """This alignment with its last step: the centroid (d,) that `move` left goes to the image mean."""
        return replace(self, drift_mean=drift_mean)

    def require(self, width: int | None = None, fingerprint: str | None = None) -> None:
        """Raise ArtifactError unless this alignment belongs to vectors of that width and that encoder."""
        if width is not None and width != self.width:
            raise ArtifactError(f"alignment: its width is {self.width}, the vectors' {width}; run realign again")
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise ArtifactError(
                f"alignment: of encoder {self.fingerprint}, but the vectors come from {fingerprint}; run realign again"
            )

    def save(self, folder: Path) -> None:
        """Write alignment.safetensors and alignment.json into `folder`; the same alignment gives the same bytes."""
        tensors = {name: np.ascontiguousarray(value) for name, value in self._vectors().items()}
        artifacts.write_bytes(folder / TENSORS_FILE, safetensors.numpy.save(tensors))
        artifacts.write_json(folder / SETTINGS_FILE, {"format_version": FORMAT_VERSION, **self._settings()})

    @classmethod
    def load(cls, folder: Path, width: int | None = None, fingerprint: str | None = None) -> "Alignment":
        """Read what `save` wrote, for vectors of that width and encoder where they are given.

        Raises ArtifactError when it is missing, damaged, of another format, or belongs to other vectors.
        """
        path = folder / SETTINGS_FILE
        settings = artifacts.read_json(path)
        if not isinstance(settings, dict) or settings.pop("format_version", None) != FORMAT_VERSION:
            raise ArtifactError(f"{path}: not an alignment of format {FORMAT_VERSION}; run realign again")
        try:
            vectors = safetensors.numpy.load_file(folder / TENSORS_FILE)
            alignment = cls(**settings, **{name: vectors.get(name) for name in _VECTORS})
        except (FileNotFoundError, safetensors.SafetensorError, TypeError) as error:
            raise ArtifactError(f"{folder}: a damaged alignment ({error}); run realign again") from error
        alignment._check(folder)
        alignment.require(width, fingerprint)
        return alignment

    def _vectors(self) -> dict[str, np.ndarray]:
        return {name: value for name in _VECTORS if (value := getattr(self, name)) is not None}

    def _settings(self) -> dict[str, Any]:
        names = [name for name in self.__dataclass_fields__ if name not in _VECTORS]
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "sources": {side: list(digests) for side, digests in sorted(self.sources.items())}}

    def _check(self, folder: Path) -> None:
        """The vectors that the method needs are there, finite, and of one width."""
        needed = _VECTORS if self.method in RECIPES and RECIPES[self.method].recentres else _VECTORS[:3]
        vectors = self._vectors()
        shapes = {value.shape for value in vectors.values()}
        whole = self.method in RECIPES and tuple(vectors) == needed and len(shapes) == 1
        if not whole or not all(np.isfinite(value).all() for value in vectors.values()):
            raise ArtifactError(f"{folder}: a damaged alignment (vectors missing or not finite); run realign again")


def _project(rows: np.ndarray) -> np.ndarray:
    """Rows back on the unit sphere."""
    return rows / np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
