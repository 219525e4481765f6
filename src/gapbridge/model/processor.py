"""Pictures and chats to model inputs: the encoder's preprocessing, k placeholders a picture, any chat template.

Shapes: `b` batch, `t` tokens, `k` visual tokens.
"""

from typing import Any

from transformers import ProcessorMixin

PICTURE_SEPARATOR = "\n"
"""Between the picture (or the text in its place) and the first question, in training and afterwards."""
TEMPLATE_DATE = "26 Jul 2024"
"""Llama-3 templates write today's date unless told another: the ids must not depend on the day."""

# Language models' templates take plain strings and some write today's date: contents are made strings first, and
# the day is fixed, since training fixed it too.
_FLATTEN = (
    "{%%- if date_string is not defined -%%}{%%- set date_string = '%s' -%%}{%%- endif -%%}"
    "{%%- set flat = namespace(messages=[]) -%%}"
    "{%%- for message in messages -%%}"
    "{%%- if message['content'] is string -%%}{%%- set flat.text = message['content'] | trim -%%}"
    "{%%- else -%%}{%%- set flat.text = '' -%%}"
    "{%%- for part in message['content'] -%%}"
    "{%%- if part['type'] == 'text' -%%}{%%- set flat.text = flat.text + part['text'] | trim -%%}"
    "{%%- else -%%}{%%- set flat.text = flat.text + '%s' + '%s' -%%}{%%- endif -%%}"
    "{%%- endfor -%%}{%%- endif -%%}"
    "{%%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%%}"
    "{%%- endfor -%%}"
    "{%%- set messages = flat.messages -%%}"
)


class GapbridgeProcessor(ProcessorMixin):
    """An image processor and a tokenizer; a picture in the text is written as `image_token` and becomes k of them."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        visual_tokens: int = 1,
        image_token: str = "<image>",  # noqa: S107, a marker and no secret
        chat_template: str | None = None,
        **_: Any,
    ) -> None:
        self.visual_tokens = visual_tokens
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """The k placeholders of one picture."""
        return self.image_token * self.visual_tokens


def picture_template(chat_template: str, image_token: str) -> str:
    """A chat template that takes image parts, made of one that takes strings alone."""
    return _FLATTEN % (TEMPLATE_DATE, image_token, "\\n") + chat_template
