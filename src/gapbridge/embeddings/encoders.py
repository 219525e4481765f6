"""Contrastive dual encoders behind one interface: texts and pictures in, unit vectors out.

Shapes: `n` rows, `d` width, `b` rows of one batch, `t` tokens, `s` pixels a side.

An encoder's folder holds encoder.json and, when the encoder was trained here, the files that open_clip loads
from a local directory; a pinned encoder is known by its name and the fingerprint of its weights. The image half and the
tokenizer have fingerprints of their own, so that either can be loaded without the rest and yet be known.

A row depends on its content alone, to the byte, never on the batch: every batch has the same number of rows, and a text
is padded to a length that follows from itself.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from gapbridge import artifacts
from gapbridge.embeddings.adapters import ADAPTERS
from gapbridge.embeddings.towers import (
    ImageHalf,
    Towers,
    Words,
    digest_of,
    kind_of,
    open_image_half,
    open_towers,
    open_words,
)
from gapbridge.errors import ArtifactError, InputError

FORMAT_VERSION = 2
BATCH_ROWS = 64
"""Rows of every batch; the last one is padded, since kernels may round otherwise for another shape."""
BROUGHT = "vectors"
"""The kind that says that there is no encoder: the vectors were brought along."""
_LOCAL = "local"


class Encoder(Protocol):
    """What the stages need of a contrastive dual encoder."""

    width: int
    context_length: int
    fingerprint: str
    """sha256 over weights, preprocessing, tokenizer and text template: what decides a vector."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) float32 of the texts, put into the text template first."""

    def pixels(self, image: Image.Image) -> Any:
        """What the image half takes of one picture; several threads may ask at once."""

    def encode_pixels(self, pixels: Sequence[Any]) -> np.ndarray:
        """Unit rows (n, d) float32 of pictures, each as `pixels` gave it."""

    def token_counts(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens (n,) of the whole texts; those with more than `context_length` lose their end."""


class TemplatedWords:
    """Texts inside the template, as the encoder's tokenizer cuts them up; it needs none of the weights."""

    def __init__(self, words: Words, template: str) -> None:
        """`template` holds `{}` where the text stands."""
        self._words, self._template = words, template
        self.context_length = words.context_length

    def templated(self, texts: Sequence[str]) -> list[str]:
        """The texts, each put into the template."""
        return [self._template.replace("{}", text) for text in texts]

    def token_counts(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens (n,) of the texts inside the template, with the markers around them."""
        return self._words.lengths(self.templated(texts))

    def truncated(self, texts: Sequence[str]) -> int:
        """How many texts need more tokens than the context has places."""
        return sum(count > self.context_length for count in self.token_counts(texts))

    def fingerprint(self) -> str:
        """sha256 over the template and all of the tokenizer."""
        return digest_of((self._template, *self._words.wording), {})


class DualEncoder:
    """The encoder of whatever library, in evaluation mode, with its own preprocessing and tokenizer."""

    def __init__(self, towers: Towers, template: str) -> None:
        """`template` holds `{}` where the text stands."""
        self.image, self.words = towers.image, TemplatedWords(towers, template)
        self.width, self.context_length = towers.width, towers.context_length
        self._towers = towers
        self.fingerprint = digest_of((template, *towers.description), towers.model.state_dict())

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) float32."""
        templated = self.words.templated(texts)
        rows, places = np.empty((len(texts), self.width), np.float32), np.array(self._towers.places(templated))
        for count in np.unique(places):
            here = np.flatnonzero(places == count)
            rows[here] = self._encode(
                [templated[place] for place in here],
                partial(self._towers.tokens, places=int(count)),
                self._towers.text_features,
            )
        return rows

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s): the picture resized, cropped and normalised as the encoder was trained."""
        return self._towers.pixels(image)

    def encode_pixels(self, pixels: Sequence[Any]) -> np.ndarray:
        """Unit rows (n, d) float32."""
        import torch

        return self._encode(
            pixels,
            lambda part: {"pixels": torch.stack(list(part))},
            lambda batch: self._towers.image_features(batch["pixels"]),
        )

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit rows (n, d) float32 of pictures as they are."""
        return self.encode_pixels([self.pixels(image) for image in images])

    def token_counts(self, texts: Sequence[str]) -> Sequence[int]:
        """As `TemplatedWords` has it."""
        return self.words.token_counts(texts)

    def truncated(self, texts: Sequence[str]) -> int:
        """As `TemplatedWords` has it."""
        return self.words.truncated(texts)

    def _encode(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], dict[str, Any]],
        forward: Callable[[dict[str, Any]], Any],
    ) -> np.ndarray:
        import torch

        device = next(self._towers.model.parameters()).device
        rows = np.empty((len(items), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(items), BATCH_ROWS):
                part = items[start : start + BATCH_ROWS]
                batch = {name: _padded(values).to(device) for name, values in prepare(part).items()}
                rows[start : start + len(part)] = _unit(forward(batch)[: len(part)].double().cpu().numpy())
        return rows


def best_device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_encoder(folder: Path, device: str = "cpu", threads: int | None = None) -> DualEncoder:
    """The encoder of `artifacts/encoder/`, on `device`, with `threads` CPU threads for the whole process.

    Raises ArtifactError when weights are missing, incomplete or not those that encoder.json names.
    """
    about = _about_models(folder)
    if threads:
        import torch

        torch.set_num_threads(threads)
    encoder = open_pretrained(_name(folder, about), about["revision"], about["text_template"], device)
    _demand_same(folder, about, "fingerprint", encoder.fingerprint)
    return encoder


def load_image_half(folder: Path) -> ImageHalf:
    """The image half of the encoder of `artifacts/encoder/`, on the CPU; no weight of the text half is read.

    Raises ArtifactError as `load_encoder` does.
    """
    about = _about_models(folder)
    half = open_image_half(_name(folder, about), about["revision"])
    _demand_same(folder, about, "image_fingerprint", half.fingerprint())
    return half


def load_words(folder: Path) -> TemplatedWords:
    """The tokenizer of the encoder of `artifacts/encoder/`; no weight is read.

    Raises ArtifactError where files are missing or are not those that encoder.json names.
    """
    about = _about_models(folder)
    words = TemplatedWords(open_words(_name(folder, about), about["revision"]), about["text_template"])
    _demand_same(folder, about, "words_fingerprint", words.fingerprint())
    return words


def _about_models(folder: Path) -> dict[str, Any]:
    about = read_about(folder)
    if about["kind"] == BROUGHT:
        raise ArtifactError(f"{folder}: no encoder, vectors were brought along; pin one in encoder.pretrained")
    return about


def _name(folder: Path, about: dict[str, Any]) -> str:
    return f"local-dir:{folder}" if about["pretrained"] == _LOCAL else about["pretrained"]


def _demand_same(folder: Path, about: dict[str, Any], which: str, found: str) -> None:
    if found != about[which]:
        what = "the tokenizer" if which == "words_fingerprint" else "the weights"
        raise ArtifactError(
            f"{_name(folder, about)}: not {what} that {folder}/encoder.json names; run `gapbridge encoder`"
        )


def read_about(folder: Path) -> dict[str, Any]:
    """What encoder.json in `folder` says, its `fingerprint` among it. Raises ArtifactError for another format."""
    about = artifacts.read_json(folder / "encoder.json")
    if about.get("format_version") != FORMAT_VERSION or about.get("kind") not in ADAPTERS:
        raise ArtifactError(f"{folder}/encoder.json: no encoder of format {FORMAT_VERSION}; run `gapbridge encoder`")
    return about


def pin_encoder(
    folder: Path, name: str | None, revision: str | None, text_template: str, device: str = "cpu"
) -> DualEncoder:
    """Write encoder.json into `folder`: for the pretrained encoder `name`, or (None) for the one stored in `folder`.

    Raises InputError for a name that cannot be one, ArtifactError for weights that do not fit.
    """
    encoder = open_pretrained(name or f"local-dir:{folder}", revision, text_template, device)
    about = {
        "format_version": FORMAT_VERSION,
        "kind": kind_of(name or ""),
        "pretrained": name or _LOCAL,
        "revision": revision,
        "text_template": text_template,
        "fingerprint": encoder.fingerprint,
        "image_fingerprint": encoder.image.fingerprint(),
        "words_fingerprint": encoder.words.fingerprint(),
        "width": encoder.width,
        "context_length": encoder.context_length,
    }
    artifacts.write_json(folder / "encoder.json", about)
    return encoder


def pin_vectors(folder: Path, name: str, width: int) -> dict[str, Any]:
    """Write encoder.json for vectors that `name` made elsewhere, and return it: there is no encoder to load."""
    about = {
        "format_version": FORMAT_VERSION,
        "kind": BROUGHT,
        "pretrained": name,
        "fingerprint": hashlib.sha256(f"{BROUGHT}\0{name}\0{width}".encode()).hexdigest(),
        "width": width,
    }
    artifacts.write_json(folder / "encoder.json", about)
    return about


def open_pretrained(
    name: str, revision: str | None = None, text_template: str = "{}", device: str = "cpu"
) -> DualEncoder:
    """A pretrained encoder by name.

    `local-dir:PATH`, `hf-hub:OWNER/NAME` and `ARCHITECTURE/TAG` are open_clip's names; `transformers:PATH` and
    `transformers:OWNER/NAME` are CLIP, SigLIP or SigLIP 2 as transformers saves them; `llm2clip:VISION+TEXT` names
    LLM2CLIP's two models, each a path or a hub id (`embeddings.llm2clip_towers`).
    Raises InputError for a malformed name, template or needless revision, ArtifactError when the weights are not there
    or do not fill the model exactly.
    """
    if "{}" not in text_template:
        raise InputError(f"encoder.text_template: {text_template!r} has no {{}} where the text belongs")
    return DualEncoder(open_towers(name, revision, device), text_template)


def _padded(batch: Any) -> Any:
    """`batch` (b, …) with its last row repeated up to `BATCH_ROWS`."""
    import torch

    missing = BATCH_ROWS - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing else batch


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows (b, d) float64 brought to length one; NaN stays NaN, for the caller to refuse."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if (norms == 0).any():
        raise ArtifactError("encoder: gave a vector of zeros, which has no direction; check its weights")
    return (features / norms).astype(np.float32)
