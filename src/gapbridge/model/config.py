"""What a saved model says of itself: the encoder's image half, the adapter, the language model.

Shapes: `d` width of the encoder's vectors, `k` visual tokens, `h` width of the language model.
"""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.llava.configuration_llava import LlavaConfig


@strict
class GapbridgeVisionConfig(PreTrainedConfig):
    """An open_clip image tower that gives one vector a picture.

    `architecture` is the `model_cfg` of open_clip, whose image half alone is built.
    """

    model_type = "gapbridge_vision"
    base_config_key = "vision_config"

    hidden_size: int = 256
    """Width d of the vector."""
    image_size: int = 64
    architecture: dict[str, Any] | None = None
    encoder_fingerprint: str | None = None
    """Of the encoder whose vectors the model learned to read."""


@strict
class GapbridgeConfig(LlavaConfig):
    """A language model that reads a picture as k tokens made from one vector (arXiv 2602.07026 §5)."""

    model_type = "gapbridge"
    sub_configs_defaults = {  # noqa: RUF012, transformers reads it so
        "vision_config": SubConfigSpec(config_class=GapbridgeVisionConfig, model_type="gapbridge_vision"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    visual_tokens: int = 8
    """k: how many tokens stand for a picture."""
    adapter_hidden_size: int = 512
    expansion: Literal["heads", "repeat"] = "heads"
    """One linear head a token, or the same token k times."""
