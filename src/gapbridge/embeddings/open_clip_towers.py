"""Encoders of open_clip: a local directory, a hub id, or one of its own names with a tag."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched

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
        self.description: Sequence[str] = tuple(_description(self.preprocess_cfg, tokenizer))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens (n,) of the whole texts, with the markers around them."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        if inner is None:
            return [len(self._tokenizer.encode(text)) + 2 for text in texts]
        clean = getattr(self._tokenizer, "clean_fn", str)
        cleaned = [clean(text) for text in texts]
        return [len(ids) for ids in inner(cleaned, truncation=False).input_ids] if cleaned else []

    def places(self, texts: Sequence[str]) -> list[int]:
        """All texts take the whole context: many of open_clip's text halves want exactly that."""
        return [self.context_length] * len(texts)

    def tokens(self, texts: Sequence[str], places: int) -> dict[str, Any]:
        """Ids (b, t)."""
        return {"ids": self._tokenizer(list(texts), context_length=places)}

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s)."""
        return self._preprocess(image)

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.encode_text(tokens["ids"])

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.encode_image(pixels)


def _resolve(name: str, revision: str | None) -> tuple[str, str | None]:
    """open_clip's (model name, tag); a hub's files are fetched at the revision and read as a folder."""
    if name.startswith("hf-hub:"):
        return _local(fetched(name.removeprefix("hf-hub:"), revision, _HUB_FILES), name), None
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
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        yield tokenizer_content(inner)


def tokenizer_content(tokenizer: Any) -> str:
    """What a tokenizer of transformers is, as JSON; truncation and padding are settings of its last call.

    One that reads a SentencePiece file is known by that file's digest and its own settings.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return json.dumps({**json.loads(fast.to_str()), "truncation": None, "padding": None}, sort_keys=True)
    file = getattr(tokenizer, "vocab_file", None)
    if file is None:
        raise InputError(
            f"{tokenizer.name_or_path}: a {type(tokenizer).__name__} cannot be told apart; save a fast one"
        )
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, str | int | None)}
    about = {name: value for name, value in settings.items() if name not in ("name_or_path", "vocab_file")}
    return json.dumps([type(tokenizer).__name__, artifacts.file_digest(Path(file)), about], sort_keys=True)


def first_line(error: BaseException) -> str:
    """The words of an error in one line, not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
