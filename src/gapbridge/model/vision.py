"""The encoder's image half as a transformers model: pictures in, one unit vector each out.

Shapes: `b` pictures, `s` pixels a side, `d` width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from gapbridge.errors import ArtifactError
from gapbridge.model.config import GapbridgeVisionConfig


class PooledVisionTower(PreTrainedModel):
    """The image half of an encoder; always in evaluation mode, since nothing here trains it."""

    config_class = GapbridgeVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: GapbridgeVisionConfig) -> None:
        super().__init__(config)
        # Towers compute tables while they are built; on the meta device those would stay empty.
        with torch.device("cpu"):
            self.visual = build_tower(config.architecture or {})
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Pictures (b, 3, s, s), preprocessed as the encoder's, to `pooler_output` (b, d) of length one."""
        dtype = next(self.visual.parameters()).dtype
        features = self.visual(pixel_values.to(dtype))
        if isinstance(features, ModelOutput):
            pooled = features.image_embeds if "image_embeds" in features else features.pooler_output
        else:
            pooled = features[0] if isinstance(features, tuple) else features
        return BaseModelOutputWithPooling(pooler_output=nn.functional.normalize(pooled.float(), dim=-1))

    def train(self, mode: bool = True) -> "PooledVisionTower":
        """Evaluation mode, whatever is asked: a batch norm that kept learning would change the encoder."""
        return super().train(False)

    def _init_weights(self, module: nn.Module) -> None:
        """The tower's own initial values stay."""


def build_tower(architecture: dict[str, Any]) -> nn.Module:
    """The image tower that an open_clip `model_cfg`, or the config of one of transformers, describes; random weights.

    Raises ArtifactError when it cannot be built.
    """
    if "transformers" in architecture:
        return _transformers_tower(architecture["transformers"], architecture["vision_cfg"])
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    try:
        vision = CLIPVisionCfg(**{**architecture["vision_cfg"], "timm_model_pretrained": False})
        return _build_vision_tower(architecture["embed_dim"], vision, architecture.get("quick_gelu", False))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"vision tower: open_clip cannot build it ({error}); save the model again") from error


def _transformers_tower(kind: str, settings: dict[str, Any]) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

    if kind == "clip":
        tower: nn.Module = CLIPVisionModelWithProjection(CLIPVisionConfig(**settings))
    elif kind == "siglip":
        tower = SiglipVisionModel(SiglipVisionConfig(**settings))
    else:
        raise ArtifactError(f"vision tower: a {kind} of transformers is not known here; save the model again")
    # While a model is read, its tables are emptied and filled again, in modules that are not marked as filled.
    for module in tower.modules():
        module._is_hf_initialized = False  # type: ignore[assignment]  # torch types all attributes as its own
    return tower
