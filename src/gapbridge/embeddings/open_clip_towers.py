"""Encoders of open_clip: a local directory, a hub id, or one of its own names with a tag."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError

_HUB_FILES = ["open_clip_config.json", "*.safetensors", "*.json", "*.txt", "*.model"]


class OpenClipTowers:
    """`Towers` of a model that open_clip loads."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """Raises InputError for a malformed name or a needless revision, ArtifactError for weights that do not fit."""
        import open_clip

        model_name, tag = _resolve(name, revision)
        try:
            model, preprocess = open_clip.create_model_from_pretrained(model_name, tag, device=device)
            tokenizer = open_clip.get_tokenizer(model_name)
        except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{name}: open_clip cannot load it ({first_line(error)}); check name and files"
            ) from error
        self.model, self._preprocess, self._tokenizer = model.eval(), preprocess, tokenizer
        self.visual = model.visual
        self.architecture = _architecture(model_name)
        self.preprocess_cfg: dict[str, Any] = dict(model.visual.preprocess_cfg)
        self.width = int(self.architecture["embed_dim"])
        self.context_length = int(tokenizer.context_length)
        self.description = tuple(_description(self.preprocess_cfg, tokenizer))

    def tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        """Ids (b, t)."""
        return {"ids": self._tokenizer(list(texts))}

    def pixels(self, images: Sequence[Image.Image]) -> Any:
        """(b, 3, s, s)."""
        import torch

        return torch.stack([self._preprocess(image) for image in images])

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.encode_text(tokens["ids"])

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.encode_image(pixels)

    def length(self, text: str) -> int:
        """Tokens of the whole text, with the markers around it."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        return len(inner(text).input_ids) if inner is not None else len(self._tokenizer.encode(text)) + 2


def _resolve(name: str, revision: str | None) -> tuple[str, str | None]:
    """open_clip's (model name, tag); a hub's files are fetched at the revision and read as a folder."""
    if name.startswith("hf-hub:"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            found = snapshot_download(name.removeprefix("hf-hub:"), revision=revision, allow_patterns=_HUB_FILES)
        except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ArtifactError(f"{name}: cannot be fetched ({first_line(error)}); check name and network") from error
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


def _description(preprocess_cfg: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    yield json.dumps(preprocess_cfg, sort_keys=True)
    yield f"{type(tokenizer).__name__} {tokenizer.context_length}"
    fast = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if fast is not None:
        yield tokenizer_content(fast)


def tokenizer_content(fast: Any) -> str:
    """What a tokenizer of `tokenizers` is, as JSON; truncation and padding are settings of its last call."""
    return json.dumps({**json.loads(fast.to_str()), "truncation": None, "padding": None}, sort_keys=True)


def first_line(error: BaseException) -> str:
    """The words of an error in one line, not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
