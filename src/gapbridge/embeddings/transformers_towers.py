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
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched, why_absent

MODEL_TYPES = ("clip", "siglip")
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_FEWEST_TOKENS = 100
_LOWER_CASED = "GemmaTokenizer"


class TransformersTowers:
    """`Towers` of a CLIP or SigLIP checkpoint."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """Raises InputError for another kind of model, ArtifactError where files are missing or weights do not fit."""
        self.model, self._processor, self._tokenizer = _load(_folder(name, revision))
        self.model.to(device)
        self._is_clip = self.model.config.model_type == "clip"
        # SigLIP 2 was trained on lower-cased texts (arXiv 2502.14786), which its published tokenizer does not see to.
        self._lower_cases = type(self._tokenizer).__name__ == _LOWER_CASED
        self.visual, self.architecture = _image_half(self.model)
        self.width = int(self.architecture["embed_dim"])
        self.context_length = int(self.model.config.text_config.max_position_embeddings)
        settings = json.loads(self._processor.to_json_string())
        self.preprocess_cfg: dict[str, Any] = {"size": self.architecture["image_size"], "transformers": settings}
        self.description: Sequence[str] = (
            json.dumps(settings, sort_keys=True),
            f"{type(self.model).__name__} {self.context_length}",
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

    def pixels(self, image: Image.Image) -> Any:
        """(3, s, s)."""
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.get_text_features(**tokens).pooler_output

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def _cased(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._lower_cases else list(texts)


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


def _load(folder: Path) -> tuple[Any, Any, Any]:
    """Model, image processor and tokenizer. Nothing but safetensors is read, and no code of the checkpoint is run."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    name, source = str(folder), {"trust_remote_code": False}
    config = loaded(name, lambda: AutoConfig.from_pretrained(name, **source))
    if config.model_type == "siglip2":
        raise InputError(
            f"encoder.pretrained: {name} is SigLIP 2 for pictures of any shape (NaFlex); take a checkpoint of one"
            " resolution, such as google/siglip2-base-patch16-224"
        )
    if config.model_type not in MODEL_TYPES:
        raise InputError(
            f"encoder.pretrained: {name} is a model of type {config.model_type}; CLIP and SigLIP can be read"
        )
    model, told = loaded(
        name, lambda: AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **source)
    )
    processor = loaded(name, lambda: AutoImageProcessor.from_pretrained(name, **source))
    tokenizer = read_tokenizer(name)
    demand_complete(name, told)
    return model.eval(), processor, tokenizer


def _image_half(model: Any) -> tuple[Any, dict[str, Any]]:
    """The image half with the model's own weights, and what `model.vision` builds it from."""
    from transformers import CLIPVisionModelWithProjection

    config = model.config.vision_config
    if model.config.model_type == "clip":
        config.projection_dim = model.config.projection_dim
        half = CLIPVisionModelWithProjection(config)
        half.vision_model, half.visual_projection = model.vision_model, model.visual_projection
    else:
        half = model.vision_model
    return half.eval(), vision_architecture(model.config.model_type, config)


def vision_architecture(kind: str, config: Any) -> dict[str, Any]:
    """What `model.vision` builds the image half of such a `kind` and vision config from."""
    width = config.projection_dim if kind == "clip" else config.hidden_size
    about = {"transformers": kind, "image_size": config.image_size, "embed_dim": width}
    return {**about, "vision_cfg": json.loads(config.to_json_string(use_diff=False))}
