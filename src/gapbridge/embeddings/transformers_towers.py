"""Encoders as transformers saves them: CLIP, SigLIP, and SigLIP 2 of one resolution (which is a SigLIP model)."""

import json
from collections.abc import Sequence
from typing import Any

from PIL import Image
from safetensors import SafetensorError

from gapbridge.embeddings.open_clip_towers import first_line, tokenizer_content
from gapbridge.errors import ArtifactError, InputError

MODEL_TYPES = ("clip", "siglip")
_FEWEST_TOKENS = 100


class TransformersTowers:
    """`Towers` of a CLIP or SigLIP checkpoint."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """Raises InputError for another kind of model, ArtifactError where files are missing or weights do not fit."""
        self._name = name
        self.model, self._processor, self._tokenizer = _load(name, revision, device)
        self._is_clip = self.model.config.model_type == "clip"
        self.visual, self.architecture = _image_half(self.model)
        self.width = int(self.architecture["embed_dim"])
        self.context_length = int(self.model.config.text_config.max_position_embeddings)
        settings = json.loads(self._processor.to_json_string())
        self.preprocess_cfg: dict[str, Any] = {"size": self.architecture["image_size"], "transformers": settings}
        self.description = (
            json.dumps(settings, sort_keys=True),
            f"{type(self.model).__name__} {self.context_length}",
            tokenizer_content(self._tokenizer.backend_tokenizer),
        )

    def tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        """Ids (b, t), with a mask for CLIP; SigLIP was trained on padded texts without one."""
        found = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask") if self._is_clip else ("input_ids",)
        return {name: found[name] for name in names}

    def pixels(self, images: Sequence[Image.Image]) -> Any:
        """(b, 3, s, s)."""
        return self._processor(images=list(images), return_tensors="pt")["pixel_values"]

    def text_features(self, tokens: dict[str, Any]) -> Any:
        """(b, d)."""
        return self.model.get_text_features(**tokens).pooler_output

    def image_features(self, pixels: Any) -> Any:
        """(b, d)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def length(self, text: str) -> int:
        """Tokens of the whole text, with the markers around it."""
        return len(self._tokenizer(text, truncation=False).input_ids)


def _load(name: str, revision: str | None, device: str) -> tuple[Any, Any, Any]:
    """Model, image processor and tokenizer. Nothing but safetensors is read, and no code of the checkpoint is run."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        if config.model_type not in MODEL_TYPES:
            raise InputError(
                f"encoder.pretrained: {name} is a model of type {config.model_type}; CLIP and SigLIP can be read"
            )
        model, told = AutoModel.from_pretrained(
            name, revision=revision, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{name}: transformers cannot load it ({first_line(error)}); check its files") from error
    if len(tokenizer) < _FEWEST_TOKENS:  # transformers makes an empty one up where the files are missing
        raise ArtifactError(
            f"{name}: its tokenizer knows {len(tokenizer)} tokens; its files are missing, copy them too"
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[what]:
            first = sorted(str(key) for key in told[what])[0]
            raise ArtifactError(
                f"{name}: {len(told[what])} {what.replace('_', ' ')} (the first: {first}); save it again"
            )
    return model.eval().to(device), processor, tokenizer


def _image_half(model: Any) -> tuple[Any, dict[str, Any]]:
    """The image half with the model's own weights, and what `model.vision` builds it from."""
    from transformers import CLIPVisionModelWithProjection

    config = model.config.vision_config
    about = {"transformers": model.config.model_type, "image_size": config.image_size}
    if model.config.model_type == "clip":
        config.projection_dim = model.config.projection_dim
        half = CLIPVisionModelWithProjection(config)
        half.vision_model, half.visual_projection = model.vision_model, model.visual_projection
        width = config.projection_dim
    else:
        half, width = model.vision_model, config.hidden_size
    return half.eval(), {**about, "embed_dim": width, "vision_cfg": json.loads(config.to_json_string(use_diff=False))}
