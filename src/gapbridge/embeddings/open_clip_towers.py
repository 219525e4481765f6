"""Encoders of open_clip: a local directory, a hub id, or one of its own names with a tag."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from safetensors import SafetensorError, safe_open

from gapbridge import artifacts
from gapbridge.embeddings.towers import ImageHalf
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched

Result = TypeVar("Result")
_VISUAL = "visual."
_HUB_FILES = ["open_clip_config.json", "*.safetensors", "*.json", "*.txt", "*.model"]


class OpenClipWords:
    """`Words` of a model that open_clip knows."""

    def __init__(self, name: str, revision: str | None) -> None:
        """Raises InputError for a malformed name or a needless revision, ArtifactError where files are missing."""
        import open_clip

        self._name, self._tag = _resolve(name, revision)
        self._tokenizer = _loaded(name, lambda: open_clip.get_tokenizer(self._name))
        self.context_length = int(self._tokenizer.context_length)
        self.wording: Sequence[str] = tuple(_wording(self._tokenizer))

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


class OpenClipTowers(OpenClipWords):
    """`Towers` of a model that open_clip loads."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """As `OpenClipWords`; raises ArtifactError for weights that do not fit, too."""
        import open_clip

        super().__init__(name, revision)
        model, self._preprocess = _loaded(
            name, lambda: open_clip.create_model_from_pretrained(self._name, self._tag, device=device)
        )
        self.model = model.eval()
        self.image = ImageHalf(model.visual, _architecture(self._name), dict(model.visual.preprocess_cfg))
        self.width = int(self.image.architecture["embed_dim"])
        self.description: Sequence[str] = (json.dumps(self.image.preprocess_cfg, sort_keys=True), *self.wording)

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s)."""
        return self._preprocess(image)

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.encode_text(tokens["ids"])

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.encode_image(pixels)


def image_half(name: str, revision: str | None) -> ImageHalf:
    """The image half, from its own weights where they lie in a folder as open_clip saves them.

    Of weights in another library's layout, and of those that a tag names, open_clip reads all. Errors as
    `OpenClipTowers` has them.
    """
    model_name, tag = _resolve(name, revision)
    half = _loaded(name, lambda: _in_folder(Path(model_name.removeprefix("local-dir:")))) if tag is None else None
    return half or OpenClipTowers(name, revision, "cpu").image


def _in_folder(folder: Path) -> ImageHalf | None:
    """The image half of a folder; None where its weights are not named as those of the model that it describes."""
    from open_clip.factory import _find_checkpoint_in_dir
    from open_clip.model import _build_vision_tower
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    config = artifacts.read_json(folder / "open_clip_config.json")
    architecture = config["model_cfg"]
    vision = {**architecture["vision_cfg"], "timm_model_pretrained": False}
    visual = _build_vision_tower(architecture["embed_dim"], vision, architecture.get("quick_gelu", False))
    with safe_open(_find_checkpoint_in_dir(folder), framework="pt") as file:
        names = {key.removeprefix(_VISUAL): key for key in file.keys() if key.startswith(_VISUAL)}  # noqa: SIM118
        own = visual.state_dict()
        if names.keys() != own.keys() or any(
            list(own[name].shape) != file.get_slice(key).get_shape() for name, key in names.items()
        ):
            return None
        visual.load_state_dict({name: file.get_tensor(key) for name, key in names.items()})
    settings = merge_preprocess_dict(asdict(PreprocessCfg()), config.get("preprocess_cfg", {}))
    if hasattr(visual, "image_size"):
        settings["size"] = visual.image_size
    return ImageHalf(visual.eval(), dict(architecture), settings)


def _loaded(name: str, load: Callable[[], Result]) -> Result:
    """What `load` gives. Raises ArtifactError, in one line, for all that open_clip may say."""
    try:
        return load()
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ArtifactError(f"{name}: open_clip cannot load it ({first_line(error)}); check name and files") from error


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


def _wording(tokenizer: Any) -> Iterator[str]:
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
