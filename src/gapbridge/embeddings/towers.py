"""What an encoder is made of, whichever library has it: an image half, a text half, and the words that this reads.

Either half can be opened alone: who keeps the image half, or counts tokens, needs no text half, which may be as large
as a language model.
Shapes: `n` texts, `b` rows of one batch, `d` width, `s` pixels a side.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

TRANSFORMERS = "transformers:"
LLM2CLIP = "llm2clip:"
"""How the names begin of what transformers loads and of LLM2CLIP's pairs; all others are open_clip's."""


@dataclass(frozen=True)
class ImageHalf:
    """The half that looks at pictures, with all that it takes to build and feed it again."""

    visual: Any
    """An nn.Module from pixels to features (b, d), such as `model.vision` can build again."""
    architecture: dict[str, Any]
    """What `model.vision` builds it from."""
    preprocess_cfg: dict[str, Any]
    """What `model.images` makes pixels by; `size` is there in any case."""

    def fingerprint(self) -> str:
        """sha256 over weights, architecture and preprocessing."""
        about = (json.dumps(part, sort_keys=True) for part in (self.architecture, self.preprocess_cfg))
        return digest_of(about, self.visual.state_dict())


class Words(Protocol):
    """What becomes of a text before a weight sees it."""

    context_length: int
    wording: Sequence[str]
    """All that decides `lengths`, `places` and `tokens`."""

    def lengths(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens (n,) of the whole texts, with the markers around them."""

    def places(self, texts: Sequence[str]) -> Sequence[int]:
        """How many places (n,) each text is cut or padded to; a text's own tokens alone decide."""

    def tokens(self, texts: Sequence[str], places: int) -> dict[str, Any]:
        """Tensors (b, …) that the text half takes, of texts that all take so many places."""


class Towers(Words, Protocol):
    """A dual encoder as one library has it: both halves, their preprocessing, and the tokenizer."""

    image: ImageHalf
    width: int
    description: Sequence[str]
    """All but weights and template that decides a vector."""
    model: Any

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s) on the CPU; safe in several threads."""

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""


def kind_of(name: str) -> str:
    """Which of `ADAPTERS` opens the encoder of that name."""
    prefixes = {TRANSFORMERS: "transformers", LLM2CLIP: "llm2clip"}
    return next((kind for prefix, kind in prefixes.items() if name.startswith(prefix)), "open_clip")


def open_towers(name: str, revision: str | None, device: str) -> Towers:
    """All of the encoder. Raises InputError for a malformed name, ArtifactError for weights that do not fit."""
    kind = kind_of(name)
    if kind == "transformers":
        from gapbridge.embeddings.transformers_towers import TransformersTowers

        return TransformersTowers(name.removeprefix(TRANSFORMERS), revision, device)
    if kind == "llm2clip":
        from gapbridge.embeddings.llm2clip_towers import Llm2ClipTowers

        return Llm2ClipTowers(name.removeprefix(LLM2CLIP), revision, device)
    from gapbridge.embeddings.open_clip_towers import OpenClipTowers

    return OpenClipTowers(name, revision, device)


def open_image_half(name: str, revision: str | None) -> ImageHalf:
    """The image half alone, on the CPU; errors as `open_towers` has them."""
    kind = kind_of(name)
    if kind == "transformers":
        from gapbridge.embeddings import transformers_towers

        return transformers_towers.image_half(name.removeprefix(TRANSFORMERS), revision)
    if kind == "llm2clip":
        from gapbridge.embeddings import llm2clip_towers

        return llm2clip_towers.image_half(name.removeprefix(LLM2CLIP), revision)
    from gapbridge.embeddings import open_clip_towers

    return open_clip_towers.image_half(name, revision)


def open_words(name: str, revision: str | None) -> Words:
    """The tokenizer and its settings, without any weights; errors as `open_towers` has them."""
    kind = kind_of(name)
    if kind == "transformers":
        from gapbridge.embeddings.transformers_towers import TransformersWords

        return TransformersWords(name.removeprefix(TRANSFORMERS), revision)
    if kind == "llm2clip":
        from gapbridge.embeddings.llm2clip_towers import Llm2ClipWords

        return Llm2ClipWords(name.removeprefix(LLM2CLIP), revision)
    from gapbridge.embeddings.open_clip_towers import OpenClipWords

    return OpenClipWords(name, revision)


def digest_of(about: Any, state: Mapping[str, Any]) -> str:
    """sha256 over texts in their order and tensors by name, with their types and shapes."""
    import torch

    digest = hashlib.sha256()
    for part in about:
        digest.update(part.encode() + b"\0")
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).view(dtype=torch.uint8).numpy().data)
    return digest.hexdigest()
