"""The model: a language model that answers about a picture it is given as one vector.

Shapes: `b` batch, `t` tokens, `s` pixels a side, `d` width of the vector, `k` visual tokens, `h` width of the
language model, `v` vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaCausalLMOutputWithPast,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaModelOutputWithPast,
    LlavaPreTrainedModel,
)

from gapbridge.model.adapter import Adapter
from gapbridge.model.config import GapbridgeConfig
from gapbridge.model.loss import IGNORED, summed_cross_entropy
from gapbridge.model.vision import PooledVisionTower


class GapbridgeModel(LlavaModel):
    """Vision tower, adapter and language model, without a head."""

    config_class = GapbridgeConfig

    def __init__(self, config: GapbridgeConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)  # Llava's own would build its parts
        pictured = config.vision_config.architecture is not None
        self.vision_tower = PooledVisionTower(config.vision_config) if pictured else None
        self.multi_modal_projector = Adapter(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_image_features(
        self, pixel_values: Tensor | None = None, visual_embeds: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Tokens (b, k, h) as `pooler_output`, from pictures (b, 3, s, s) or from their unit vectors (b, d).

        Raises ValueError unless exactly one of the two is given.
        """
        if (pixel_values is None) == (visual_embeds is None):
            raise ValueError("give either pixel_values or visual_embeds")
        if visual_embeds is None:
            if self.vision_tower is None:
                raise ValueError("this model has no vision tower: give visual_embeds")
            visual_embeds = self.vision_tower(pixel_values).pooler_output
        return BaseModelOutputWithPooling(pooler_output=self.multi_modal_projector(visual_embeds))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Hidden states (b, t, h) of token ids (b, t), each run of k placeholders read as the next picture."""
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            inputs_embeds = self._embed(input_ids, pixel_values, visual_embeds)
        elif pixel_values is not None or visual_embeds is not None:
            raise ValueError("pictures need input_ids: inputs_embeds do not say where they stand")
        outputs: BaseModelOutputWithPast = self.language_model(
            attention_mask=attention_mask, position_ids=position_ids, cache=cache, inputs_embeds=inputs_embeds, **kwargs
        )
        return LlavaModelOutputWithPast(**outputs)

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None, visual_embeds: Tensor | None) -> Tensor:
        """Embeddings (b, t, h). The placeholder may lie outside the vocabulary, so it is never looked up."""
        placeholders = input_ids == self.config.image_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if pixel_values is None and visual_embeds is None:
            return embeds
        tokens = self.get_image_features(pixel_values, visual_embeds).pooler_output
        if placeholders.sum() != tokens.shape[0] * tokens.shape[1]:
            raise ValueError(
                f"{int(placeholders.sum())} placeholders for {len(tokens)} pictures of {tokens.shape[1]} tokens each"
            )
        return embeds.masked_scatter(placeholders[..., None], tokens.to(embeds.dtype))


class GapbridgeForConditionalGeneration(LlavaForConditionalGeneration):
    """The model with its head: trains on labels, generates answers.

    `generate` takes `pixel_values` (b, 3, s, s) from the processor, or `visual_embeds` (b, d) in their place.
    """

    config_class = GapbridgeConfig

    def __init__(self, config: GapbridgeConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = GapbridgeModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Logits (b, t, v); with `labels` (b, t) the loss instead, and no logits: most would never be read.

        The loss is the sum over targets divided by `num_items_in_batch`, or by their number in this batch.
        """
        outputs = self.model(
            input_ids, pixel_values, attention_mask, position_ids, cache, inputs_embeds, visual_embeds, **kwargs
        )
        states = outputs.last_hidden_state
        loss = logits = None
        if labels is None:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.head(states[:, kept])
        else:
            total = summed_cross_entropy(states, labels, self.head, self.config.text_config.vocab_size)
            loss = total / (num_items_in_batch or (labels[:, 1:] != IGNORED).sum())
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def head(self, states: Tensor) -> Tensor:
        """Logits (…, v) of hidden states (…, h), with the cap that some families (Gemma) put on them."""
        logits = self.lm_head(states)
        cap = getattr(self.config.text_config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def prepare_inputs_for_generation(
        self, *args: Any, visual_embeds: Tensor | None = None, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As everywhere in transformers; vectors enter once, with the prompt, like pixels do."""
        inputs = super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["visual_embeds"] = visual_embeds
        return inputs
