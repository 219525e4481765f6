"""Contrastive dual encoders behind one interface: texts and pictures in, unit vectors out.

Shapes: `n` rows, `d` width, `b` rows of one batch, `t` tokens, `s` pixels a side.

An encoder's folder holds encoder.json and, when the encoder was trained here, the files that open_clip loads
from a local directory; a pinned encoder is known by its name and the fingerprint of its weights.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError

FORMAT_VERSION = 1
BATCH_ROWS = 64
"""Rows of every batch; the last one is padded, since kernels may round otherwise for another shape."""
_LOCAL = "local"
_HUB_FILES = ["open_clip_config.json", "*.safetensors", "*.json", "*.txt", "*.model"]


class Encoder(Protocol):
    """What the stages need of a contrastive dual encoder."""

    width: int
    context_length: int
    fingerprint: str
    """sha256 over weights, preprocessing, tokenizer and text template: what decides a vector."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) float32 of the texts, put into the text template first."""

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit rows (n, d) float32 of the pictures."""

    def truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the context and lose their end."""


class OpenClipEncoder:
    """A model of open_clip in evaluation mode, with its own preprocessing and tokenizer."""

    def __init__(
        self, model: Any, preprocess: Callable[..., Any], tokenizer: Any, architecture: dict[str, Any], template: str
    ) -> None:
        """`architecture` is open_clip's `model_cfg`; `template` holds `{}` where the text stands."""
        self.visual = model.visual
        self.architecture = architecture
        self.preprocess_cfg: dict[str, Any] = dict(model.visual.preprocess_cfg)
        self.width = int(architecture["embed_dim"])
        self.context_length = int(tokenizer.context_length)
        self.text_template = template
        self._model, self._preprocess, self._tokenizer = model, preprocess, tokenizer
        self.fingerprint = _fingerprint(model, self.preprocess_cfg, tokenizer, template)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) float32."""
        return self._encode(texts, lambda part: self._tokenizer(self._templated(part)), self._model.encode_text)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit rows (n, d) float32; the pictures are resized, cropped and normalised as the encoder was trained."""
        import torch

        def pixels(part: Sequence[Image.Image]) -> torch.Tensor:
            return torch.stack([self._preprocess(image) for image in part])

        return self._encode(images, pixels, self._model.encode_image)

    def truncated(self, texts: Sequence[str]) -> int:
        """How many texts need more tokens than the context has places."""
        return sum(self._length(text) > self.context_length for text in self._templated(texts))

    def _encode(
        self, items: Sequence[Any], prepare: Callable[[Sequence[Any]], Any], forward: Callable[[Any], Any]
    ) -> np.ndarray:
        import torch

        device = next(self._model.parameters()).device
        rows = np.empty((len(items), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(items), BATCH_ROWS):
                batch = prepare(items[start : start + BATCH_ROWS])
                features = forward(_padded(batch).to(device))[: len(batch)]
                rows[start : start + len(batch)] = _unit(features.double().cpu().numpy())
        return rows

    def _templated(self, texts: Sequence[str]) -> list[str]:
        return [self.text_template.replace("{}", text) for text in texts]

    def _length(self, text: str) -> int:
        """Tokens of the whole text, with the markers around it."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        return len(inner(text).input_ids) if inner is not None else len(self._tokenizer.encode(text)) + 2


def best_device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_encoder(folder: Path, device: str = "cpu", threads: int | None = None) -> OpenClipEncoder:
    """The encoder of `artifacts/encoder/`, on `device`, with `threads` CPU threads for the whole process.

    Raises ArtifactError when weights are missing, incomplete or not those that encoder.json names.
    """
    about = read_about(folder)
    if threads:
        import torch

        torch.set_num_threads(threads)
    name = f"local-dir:{folder}" if about["pretrained"] == _LOCAL else about["pretrained"]
    encoder = open_pretrained(name, about["revision"], about["text_template"], device)
    if encoder.fingerprint != about["fingerprint"]:
        raise ArtifactError(f"{name}: not the weights that {folder}/encoder.json names; run `gapbridge encoder`")
    return encoder


def read_about(folder: Path) -> dict[str, Any]:
    """What encoder.json in `folder` says, its `fingerprint` among it. Raises ArtifactError for another format."""
    about = artifacts.read_json(folder / "encoder.json")
    if about.get("format_version") != FORMAT_VERSION or about.get("kind") != "open_clip":
        raise ArtifactError(f"{folder}/encoder.json: no encoder of format {FORMAT_VERSION}; run `gapbridge encoder`")
    return about


def pin_encoder(
    folder: Path, name: str | None, revision: str | None, text_template: str, device: str = "cpu"
) -> OpenClipEncoder:
    """Write encoder.json into `folder`: for the pretrained encoder `name`, or (None) for the one stored in `folder`.

    Raises InputError for a name that open_clip cannot know, ArtifactError for weights that do not fit.
    """
    encoder = open_pretrained(name or f"local-dir:{folder}", revision, text_template, device)
    about = {
        "format_version": FORMAT_VERSION,
        "kind": "open_clip",
        "pretrained": name or _LOCAL,
        "revision": revision,
        "text_template": text_template,
        "fingerprint": encoder.fingerprint,
        "width": encoder.width,
        "context_length": encoder.context_length,
    }
    artifacts.write_json(folder / "encoder.json", about)
    return encoder


def open_pretrained(
    name: str, revision: str | None = None, text_template: str = "{}", device: str = "cpu"
) -> OpenClipEncoder:
    """A pretrained open_clip encoder: `local-dir:PATH`, `hf-hub:OWNER/NAME` or `ARCHITECTURE/TAG`.

    Raises InputError for a malformed name, template or needless revision, ArtifactError when the weights
    are not there or do not fill the model exactly.
    """
    import open_clip

    if "{}" not in text_template:
        raise InputError(f"encoder.text_template: {text_template!r} has no {{}} where the text belongs")
    model_name, tag = _resolve(name, revision)
    try:
        model, preprocess = open_clip.create_model_from_pretrained(model_name, tag, device=device)
        tokenizer = open_clip.get_tokenizer(model_name)
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ArtifactError(f"{name}: open_clip cannot load it ({_first_line(error)}); check name and files") from error
    return OpenClipEncoder(model.eval(), preprocess, tokenizer, _architecture(model_name), text_template)


def _resolve(name: str, revision: str | None) -> tuple[str, str | None]:
    """open_clip's (model name, tag); a hub's files are fetched at the revision and read as a folder."""
    if name.startswith("hf-hub:"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            found = snapshot_download(name.removeprefix("hf-hub:"), revision=revision, allow_patterns=_HUB_FILES)
        except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ArtifactError(f"{name}: cannot be fetched ({_first_line(error)}); check name and network") from error
        return _local(Path(found), name), None
    if revision is not None:
        raise InputError(f"encoder.revision: {name} has no revisions; set it to null")
    if name.startswith("local-dir:"):
        return _local(Path(name.removeprefix("local-dir:")), name), None
    architecture, slash, tag = name.partition("/")
    if not (architecture and slash and tag):
        raise InputError(f"encoder.pretrained: {name!r} is none of local-dir:PATH, hf-hub:OWNER/NAME, ARCHITECTURE/TAG")
    return architecture, tag


def _local(folder: Path, name: str) -> str:
    """`folder` as a model name, provided that it holds weights that are no pickle: open_clip would read one."""
    if not (folder / "open_clip_config.json").is_file():
        raise ArtifactError(f"{name}: open_clip_config.json is missing; name a folder that open_clip saved")
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(f"{name}: holds no *.safetensors; convert its weights first")
    return f"local-dir:{folder}"


def _architecture(model_name: str) -> dict[str, Any]:
    import open_clip

    if model_name.startswith("local-dir:"):
        config = artifacts.read_json(Path(model_name.removeprefix("local-dir:")) / "open_clip_config.json")
        return dict(config["model_cfg"])
    return dict(open_clip.get_model_config(model_name))


def _fingerprint(model: Any, preprocess_cfg: dict[str, Any], tokenizer: Any, template: str) -> str:
    digest = hashlib.sha256()
    for part in _description(preprocess_cfg, tokenizer, template):
        digest.update(part.encode() + b"\0")
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).view(dtype=_byte_type()).numpy().data)
    return digest.hexdigest()


def _description(preprocess_cfg: dict[str, Any], tokenizer: Any, template: str) -> Iterator[str]:
    yield template
    yield json.dumps(preprocess_cfg, sort_keys=True)
    yield f"{type(tokenizer).__name__} {tokenizer.context_length}"
    fast = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if fast is not None:
        # Truncation and padding are settings of the last call, not of the tokenizer.
        content = json.loads(fast.to_str())
        yield json.dumps({**content, "truncation": None, "padding": None}, sort_keys=True)


def _byte_type() -> Any:
    import torch

    return torch.uint8


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


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
