"""The encoder's image half as a transformers model: pictures in, one unit vector each out.

Shapes: `b` pictures, `s` pixels a side, `d` width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from gapbridge.errors import ArtifactError
from gapbridge.model.config import GapbridgeVisionConfig


class PooledVisionTower(PreTrainedModel):
    """An open_clip image tower; always in evaluation mode, since nothing here trains it."""

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
        pooled = features[0] if isinstance(features, tuple) else features
        return BaseModelOutputWithPooling(pooler_output=nn.functional.normalize(pooled.float(), dim=-1))

    def train(self, mode: bool = True) -> "PooledVisionTower":
        """Evaluation mode, whatever is asked: a batch norm that kept learning would change the encoder."""
        return super().train(False)

    def _init_weights(self, module: nn.Module) -> None:
        """The tower's own initial values stay."""


def build_tower(architecture: dict[str, Any]) -> nn.Module:
    """The image tower that an open_clip `model_cfg` describes, with random weights.

    Raises ArtifactError when open_clip cannot build it.
    """
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    try:
        vision = CLIPVisionCfg(**{**architecture["vision_cfg"], "timm_model_pretrained": False})
        return _build_vision_tower(architecture["embed_dim"], vision, architecture.get("quick_gelu", False))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"vision tower: open_clip cannot build it ({error}); save the model again") from error
