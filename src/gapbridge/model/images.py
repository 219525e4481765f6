"""Pictures to pixels, exactly as the encoder was trained with: its library's own transform, from its settings.

Shapes: `b` pictures, `s` pixels a side.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import make_flat_list_of_images


class GapbridgeImageProcessor(BaseImageProcessor):
    """Resizes, crops and normalises by open_clip's `preprocess_cfg`, or by an image processor of transformers in it.

    Without either it belongs to a model that has no image tower, and refuses pictures.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012, transformers reads it so

    def __init__(self, preprocess_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.preprocess_cfg = json.loads(json.dumps(preprocess_cfg or {}))

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Pictures (PIL, or arrays of 0–255) to `pixel_values` (b, 3, s, s). Raises ValueError without a tower."""
        if not self.preprocess_cfg:
            raise ValueError("this model has no image tower: it takes vectors, as visual_embeds")
        transform = _transform(json.dumps(self.preprocess_cfg, sort_keys=True))
        pictures = [_as_picture(image) for image in make_flat_list_of_images(self.fetch_images(images))]
        pixels = torch.stack([transform(picture) for picture in pictures])
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


def _as_picture(image: Image.Image | np.ndarray | Tensor) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else to_pil_image(image)
    return ImageOps.exif_transpose(picture).convert("RGB")


@lru_cache(maxsize=8)
def _transform(settings: str) -> Callable[[Image.Image], Tensor]:
    known = json.loads(settings)
    if "transformers" in known:
        inner = known["transformers"]
        processor = getattr(transformers, inner["image_processor_type"]).from_dict(inner)
        return lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0]
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**known), is_train=False)
