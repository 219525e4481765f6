"""The bridge: one unit vector in, k tokens of the language model out.

Shapes: `b` batch, `d` width of the vector, `k` visual tokens, `h` width of the language model.
"""

import torch
from torch import Tensor, nn

from gapbridge.model.config import GapbridgeConfig


class Adapter(nn.Module):
    """Two linear layers with a GELU between them (arXiv 2602.07026 §5, App. H).

    Vectors lie in a small cap of the sphere, so they are first moved to the images' mean and divided by
    their spread; tokens leave it as large as the language model's own. All three constants are buffers:
    they are saved with the weights and nothing trains them.
    """

    image_mean: Tensor
    image_scale: Tensor
    token_scale: Tensor

    def __init__(self, config: GapbridgeConfig) -> None:
        super().__init__()
        width, hidden = config.vision_config.hidden_size, config.adapter_hidden_size
        self.visual_tokens = config.visual_tokens
        self.heads = config.visual_tokens if config.expansion == "heads" else 1
        self.hidden = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.output = nn.Linear(hidden, self.heads * config.text_config.hidden_size)
        self.register_buffer("image_mean", torch.zeros(width))
        self.register_buffer("image_scale", torch.ones(()))
        self.register_buffer("token_scale", torch.ones(()))

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors (b, d) to tokens (b, k, h)."""
        inputs = (vectors.to(self.image_mean.dtype) - self.image_mean) / self.image_scale
        projected = self.output(self.act(self.hidden(inputs))) * self.token_scale
        tokens = projected.view(len(vectors), self.heads, -1)
        return tokens.expand(-1, self.visual_tokens, -1)

    def calibrate(self, image_mean: Tensor, image_scale: float, token_scale: float) -> None:
        """Set the constants: the images' mean (d,), their mean standard deviation, the size of a token's number."""
        self.image_mean.copy_(image_mean)
        self.image_scale.fill_(image_scale)
        self.token_scale.fill_(token_scale)
