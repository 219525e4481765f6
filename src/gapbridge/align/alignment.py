"""The frozen result of a fit: it moves text vectors to where image vectors lie, and lives in a small folder.

Shapes: `n` rows, `d` width, `k` centroid steps.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from gapbridge import artifacts
from gapbridge.align.methods import RECIPES
from gapbridge.align.rows import unit_rows
from gapbridge.errors import ArtifactError

FORMAT_VERSION = 2
SETTINGS_FILE = "alignment.json"
TENSORS_FILE = "alignment.safetensors"
_MEANS = ("text_mean", "image_mean", "image_std")
_TENSORS = (*_MEANS, "drift_means", "transform")


_CANCELLATION = 1e-2
"""A squared residual below this is not found as a difference of numbers about 1: digits would be lost."""

_SLICE = 32
"""Rows whose temporaries fit the processor's nearest caches."""


class Moved(NamedTuple):
    """Aligned rows as `own` (n,) times `rows` (n, d) plus `shared` (n, k) times `basis` (k, d).

    Their sum and they themselves follow at once, without a temporary the size of the rows a step.
    """

    rows: np.ndarray
    own: np.ndarray
    shared: np.ndarray
    basis: np.ndarray

    def sum(self) -> np.ndarray:
        """(d,)."""
        total: np.ndarray = self.own @ self.rows + self.shared.sum(axis=0) @ self.basis
        return total

    def whole(self, dtype: np.typing.DTypeLike = np.float64) -> np.ndarray:
        """The aligned rows (n, d)."""
        whole = np.empty(self.rows.shape, dtype=dtype)
        for start in range(0, len(whole), _SLICE):
            here = slice(start, start + _SLICE)
            exact = self.shared[here] @ self.basis
            exact += self.rows[here] * self.own[here, None]
            whole[here] = exact
        return whole


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
    drift_means: np.ndarray
    """(k, d) where each projection left the texts' centroid; k is 0 for methods that do not recentre."""
    transform: np.ndarray | None
    """(d, d) of `blockwise`: whitening and colouring of the residuals; None elsewhere."""
    scale: float
    noise: float
    """Root mean square length of the noise of `c3`; 0 elsewhere."""
    seed: int
    """Of the noise."""
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
        return self.move(unit_rows(rows, "texts to align")[0], row_ids).astype(np.float32)

    def move(self, units: np.ndarray, row_ids: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """The steps themselves on float64 unit rows (n, d), without rounding (arXiv 2602.07026 §4.2).

        Raises ValueError where the method adds noise and `row_ids` are missing.
        """
        return self.moved(units, np.ones(len(units)), row_ids).whole()

    def moved(self, rows: np.ndarray, lengths: np.ndarray, row_ids: Sequence[str] | np.ndarray | None = None) -> Moved:
        """Every step on float64 rows (n, d) of these lengths (n,), which count as unit rows.

        Each step only adds a fixed vector or divides a row by its length, and lengths follow from inner products:
        no step has to touch the rows. Raises as `move` does.
        """
        weights = 1 / lengths
        if not RECIPES[self.method].anchors:
            return Moved(rows, weights, np.zeros((len(rows), 1)), self.text_mean[None])
        basis = np.concatenate([self.image_mean[None], self.image_mean - self.drift_means])
        if self.transform is None and not self.noise:
            along = weights * (rows @ self.text_mean)
            squares = 1 - 2 * along + self.text_mean @ self.text_mean
            if (squares > _CANCELLATION).all():
                products = weights[:, None] * _products(rows, basis) - basis @ self.text_mean
                own, shared = self._coefficients(squares, products, basis)
                around = np.concatenate([-own[:, None], shared], axis=1)
                return Moved(rows, own * weights, around, np.concatenate([self.text_mean[None], basis]))
        residuals = rows * weights[:, None]
        residuals -= self.text_mean
        if self.transform is not None:
            residuals = residuals @ self.transform
        if self.noise:
            if row_ids is None:
                raise ValueError(f"{self.method} adds noise, which is drawn from the ids of the rows")
            residuals += noise(row_ids, self.width, self.noise, self.seed)
        own, shared = self._coefficients(np.vecdot(residuals, residuals), _products(residuals, basis), basis)
        return Moved(residuals, own, shared, basis)

    def _coefficients(
        self, squares: np.ndarray, products: np.ndarray, basis: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the residuals (n,) and the basis (n, k) are multiplied by in the end: `squares` (n,) of the
        residuals' lengths, `products` (n, k) of the residuals with the basis."""
        gram = basis @ basis.T
        own, shared = np.full(len(squares), self.scale), np.zeros((len(squares), len(basis)))
        for step in range(len(basis)):
            shared[:, step] = 1.0
            length = np.sqrt(
                own**2 * squares + 2 * own * np.vecdot(shared, products) + np.vecdot(shared @ gram, shared)
            )
            own /= length
            shared /= length[:, None]
        return own, shared

    def recentred(self, drift_mean: np.ndarray) -> "Alignment":
        """This alignment with one more centroid step: where `move` left the centroid (d,) goes to the image mean."""
        return replace(self, drift_means=np.concatenate([self.drift_means, drift_mean[None]]))

    def with_origin(self, fingerprint: str | None, sources: Mapping[str, Sequence[str]]) -> "Alignment":
        """This alignment with what its vectors came from: their encoder and the digests of the files, by side."""
        return replace(self, fingerprint=fingerprint, sources=dict(sources))

    def require(self, width: int | None = None, fingerprint: str | None = None) -> None:
        """Raise ArtifactError unless this alignment belongs to vectors of that width and that encoder."""
        if width is not None and width != self.width:
            raise ArtifactError(f"alignment: its width is {self.width}, the vectors' {width}; fit it again")
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise ArtifactError(
                f"alignment: of encoder {self.fingerprint}, but the vectors come from {fingerprint}; fit it again"
            )

    def save(self, folder: Path) -> None:
        """Write alignment.safetensors and alignment.json into `folder`; the same alignment gives the same bytes."""
        tensors = {name: np.ascontiguousarray(value) for name, value in self._tensors().items()}
        artifacts.write_bytes(folder / TENSORS_FILE, safetensors.numpy.save(tensors))
        artifacts.write_json(folder / SETTINGS_FILE, {"format_version": FORMAT_VERSION, **self._settings()})

    @classmethod
    def load(cls, folder: Path, width: int | None = None, fingerprint: str | None = None) -> "Alignment":
        """Read what `save` wrote, for vectors of that width and encoder where they are given.

        Raises ArtifactError when it is missing, damaged, of another format, or belongs to other vectors.
        """
        path = folder / SETTINGS_FILE
        if not path.exists():
            raise ArtifactError(f"{folder}: holds no {SETTINGS_FILE}; name a folder that an alignment was fitted into")
        settings = artifacts.read_json(path)
        if not isinstance(settings, dict) or settings.pop("format_version", None) != FORMAT_VERSION:
            raise ArtifactError(f"{path}: not an alignment of format {FORMAT_VERSION}; fit it again")
        try:
            found = safetensors.numpy.load_file(folder / TENSORS_FILE)
            tensors: dict[str, Any] = {name: found.get(name) for name in _TENSORS}
            alignment = cls(**settings, **tensors)
        except (FileNotFoundError, safetensors.SafetensorError, TypeError) as error:
            raise ArtifactError(f"{folder}: a damaged alignment ({error}); fit it again") from error
        alignment._check(folder)
        alignment.require(width, fingerprint)
        return alignment

    def _tensors(self) -> dict[str, np.ndarray]:
        return {name: value for name in _TENSORS if (value := getattr(self, name)) is not None}

    def _settings(self) -> dict[str, Any]:
        names = [name for name in self.__dataclass_fields__ if name not in _TENSORS]
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "sources": {side: list(digests) for side, digests in sorted(self.sources.items())}}

    def _check(self, folder: Path) -> None:
        """The tensors that the method needs are there, finite, and of one width."""
        recipe, tensors = RECIPES.get(self.method), self._tensors()
        whole = (
            recipe is not None
            and {*_MEANS, "drift_means"} <= set(tensors)
            and all(tensors[name].shape == self.image_mean.shape for name in _MEANS)
            and self.drift_means.shape[1:] == self.image_mean.shape
            and bool(len(self.drift_means)) == recipe.recentres
            and ("transform" in tensors) == recipe.whitens
        )
        if not whole or not all(np.isfinite(value).all() for value in tensors.values()):
            raise ArtifactError(f"{folder}: a damaged alignment (tensors missing or not finite); fit it again")


def _products(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Inner products (n, k). One vector at a time: a matrix product with so few columns takes twice as long."""
    return np.stack([rows @ vector for vector in basis], axis=1)


def noise(row_ids: Sequence[str] | np.ndarray, width: int, size: float, seed: int) -> np.ndarray:
    """Isotropic Gaussian noise (n, d) of root mean square length `size`: a function of the seed and each row's id."""
    rows = np.empty((len(row_ids), width))
    for row, row_id in zip(rows, row_ids, strict=True):
        key = int.from_bytes(hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=16).digest())
        np.random.Generator(np.random.Philox(key=key)).standard_normal(out=row)
    rows *= size / np.sqrt(width)
    return rows
