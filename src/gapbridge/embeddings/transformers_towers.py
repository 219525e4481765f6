"""Encoders as transformers saves them: CLIP, SigLIP, and SigLIP 2 of one resolution (which is a SigLIP model).

Shapes: `n` texts, `b` rows of one batch, `d` width, `t` tokens, `s` pixels a side.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError

from gapbridge.embeddings.open_clip_towers import tokenizer_content
from gapbridge.embeddings.towers import ImageHalf
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched, why_absent

MODEL_TYPES = ("clip", "siglip")
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_FEWEST_TOKENS = 100
_LOWER_CASED = "GemmaTokenizer"
_NO_IMAGE_HALF = (r"^text_model\.", r"^text_projection\.", "^logit_scale$", "^logit_bias$", r"\.position_ids$")


class TransformersWords:
    """`Words` of a CLIP or SigLIP checkpoint."""

    def __init__(self, name: str, revision: str | None) -> None:
        """Raises InputError for another kind of model, ArtifactError where files are missing."""
        self._folder = _folder(name, revision)
        self._config = _config(self._folder)
        self._tokenizer = read_tokenizer(str(self._folder))
        self._is_clip = self._config.model_type == "clip"
        # SigLIP 2 was trained on lower-cased texts (arXiv 2502.14786), which its published tokenizer does not see to.
        self._lower_cases = type(self._tokenizer).__name__ == _LOWER_CASED
        self.context_length = int(self._config.text_config.max_position_embeddings)
        self.wording: Sequence[str] = (
            f"{self._config.model_type} {self.context_length}",
            tokenizer_content(self._tokenizer),
            *(["lower case"] if self._lower_cases else []),
        )

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens (n,) of the whole texts, with the markers around them."""
        return token_counts(self._tokenizer, self._cased(texts))

    def places(self, texts: Sequence[str]) -> list[int]:
        """CLIP's text half looks back alone: what pads a text changes nothing. SigLIP was trained on padded texts."""
        if self._is_clip:
            return [padded_length(count, self.context_length) for count in self.lengths(texts)]
        return [self.context_length] * len(texts)

    def tokens(self, texts: Sequence[str], places: int) -> dict[str, Any]:
        """Ids (b, t), with a mask for CLIP alone."""
        found = self._tokenizer(
            self._cased(texts), padding="max_length", truncation=True, max_length=places, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask") if self._is_clip else ("input_ids",)
        return {name: found[name] for name in names}

    def _cased(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._lower_cases else list(texts)


class TransformersTowers(TransformersWords):
    """`Towers` of a CLIP or SigLIP checkpoint."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """Raises InputError for another kind of model, ArtifactError where files are missing or weights do not fit."""
        super().__init__(name, revision)
        self.model, self._processor = _whole(self._folder), _processor(self._folder)
        self.model.to(device)
        self.image = _inside(self.model, self._processor)
        self.width = int(self.image.architecture["embed_dim"])
        _, *words = self.wording
        self.description: Sequence[str] = (
            json.dumps(self.image.preprocess_cfg["transformers"], sort_keys=True),
            f"{type(self.model).__name__} {self.context_length}",
            *words,
        )

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s)."""
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.get_text_features(**tokens).pooler_output

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens (n,) of the whole texts, with the markers that the tokenizer puts around them."""
    return [len(ids) for ids in tokenizer(list(texts), truncation=False).input_ids] if texts else []


def padded_length(count: int, most: int) -> int:
    """The next of 8, 12, 16, 24, 32, 48, … places, `most` at most: few lengths, and little padding in any."""
    places = 8
    while places < count:
        places = places * 3 // 2 if places & (places - 1) == 0 else places * 4 // 3
    return min(places, most)


def loaded(name: str, load: Callable[[], Any]) -> Any:
    """What `load` reads of the model `name`. Raises ArtifactError, in one line, for all that transformers may say."""
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ArtifactError(f"{name}: transformers cannot load it ({why_absent(error)}); check its files") from error


def demand_complete(name: str, told: Mapping[str, Any]) -> None:
    """Raise ArtifactError where transformers' account of a loading names keys that the model or the file lacks."""
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[what]:
            first = sorted(str(key) for key in told[what])[0]
            raise ArtifactError(
                f"{name}: {len(told[what])} {what.replace('_', ' ')} (the first: {first}); save it again"
            )


def read_tokenizer(name: str) -> Any:
    """The tokenizer of the model `name`. Raises ArtifactError where it has none."""
    from transformers import AutoTokenizer

    tokenizer = loaded(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    if len(tokenizer) < _FEWEST_TOKENS:  # transformers makes an empty one up where the files are missing
        raise ArtifactError(
            f"{name}: its tokenizer knows {len(tokenizer)} tokens; its files are missing, copy them too"
        )
    return tokenizer


def _folder(name: str, revision: str | None) -> Path:
    """Where the files of the model lie; a hub id needs a revision, or its weights could change unseen."""
    if Path(name).is_dir():
        return Path(name)
    if revision is None:
        raise InputError(
            f"encoder.pretrained transformers:{name}: no such folder; for a hub id set encoder.revision to a commit"
        )
    return fetched(name, revision, _HUB_FILES)


def image_half(name: str, revision: str | None) -> ImageHalf:
    """The image half of the checkpoint alone; errors as `TransformersTowers` has them."""
    from transformers import CLIPVisionModelWithProjection, SiglipVisionModel

    folder = _folder(name, revision)
    config = _config(folder)
    vision = config.vision_config
    if config.model_type == "clip":
        vision.projection_dim = config.projection_dim
    kind = CLIPVisionModelWithProjection if config.model_type == "clip" else SiglipVisionModel
    model, told = loaded(
        str(folder),
        lambda: half_of(kind, _NO_IMAGE_HALF).from_pretrained(
            folder, config=vision, use_safetensors=True, output_loading_info=True
        ),
    )
    demand_complete(str(folder), told)
    model.config._name_or_path = ""
    return _half(config.model_type, model, _processor(folder))


def half_of(kind: Any, others: Sequence[str]) -> Any:
    """The class `kind`, to read it from a checkpoint whose `others` (patterns of names) belong to no part of it."""
    return type(kind.__name__, (kind,), {"_keys_to_ignore_on_load_unexpected": list(others)})


def _config(folder: Path) -> Any:
    """The checkpoint's settings, provided that it is of a kind that can be read."""
    from transformers import AutoConfig

    config = loaded(str(folder), lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False))
    if config.model_type == "siglip2":
        raise InputError(
            f"encoder.pretrained: {folder} is SigLIP 2 for pictures of any shape (NaFlex); take a checkpoint of one"
            " resolution, such as google/siglip2-base-patch16-224"
        )
    if config.model_type not in MODEL_TYPES:
        raise InputError(
            f"encoder.pretrained: {folder} is a model of type {config.model_type}; CLIP and SigLIP can be read"
        )
    return config


def _whole(folder: Path) -> Any:
    """The model. Nothing but safetensors is read, and no code of the checkpoint is run."""
    from transformers import AutoModel

    model, told = loaded(
        str(folder),
        lambda: AutoModel.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        ),
    )
    demand_complete(str(folder), told)
    return model.eval()


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return loaded(str(folder), lambda: AutoImageProcessor.from_pretrained(folder, trust_remote_code=False))


def _inside(model: Any, processor: Any) -> ImageHalf:
    """The image half of a whole model, with its weights."""
    from transformers import CLIPVisionModelWithProjection

    config = model.config.vision_config
    if model.config.model_type == "clip":
        config.projection_dim = model.config.projection_dim
        half = CLIPVisionModelWithProjection(config)
        half.vision_model, half.visual_projection = model.vision_model, model.visual_projection
    else:
        half = model.vision_model
    return _half(model.config.model_type, half, processor)


def _half(kind: str, visual: Any, processor: Any) -> ImageHalf:
    architecture = vision_architecture(kind, visual.config)
    settings = {"size": architecture["image_size"], "transformers": json.loads(processor.to_json_string())}
    return ImageHalf(visual.eval(), architecture, settings)


def vision_architecture(kind: str, config: Any) -> dict[str, Any]:
    """What `model.vision` builds the image half of such a `kind` and vision config from."""
    width = config.projection_dim if kind == "clip" else config.hidden_size
    about = {"transformers": kind, "image_size": config.image_size, "embed_dim": width}
    return {**about, "vision_cfg": json.loads(config.to_json_string(use_diff=False))}
