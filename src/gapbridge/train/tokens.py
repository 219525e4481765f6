"""The tokenizer of the tiny models: byte-level BPE, small, deterministic, and lossless for words it never saw.

Every word that is frequent in the training texts becomes one token (with the space before it); any other word
is spelled in smaller pieces, down to bytes. The same function serves both tiny backbones:

- `chat=True`, the language model: nothing is added to a text; the chat template writes every marker.
- `chat=False`, the open_clip encoder: a text becomes `<bos> … <eos>`; `<pad>` is id 0 and `<eos>` the largest id,
  as CLIP's text towers expect.
"""

from collections.abc import Iterable
from typing import Any

from gapbridge.errors import InputError

PAD_TOKEN = "<pad>"
BOS_TOKEN = "<bos>"
EOS_TOKEN = "<eos>"
USER_TOKEN = "<user>"
ASSISTANT_TOKEN = "<assistant>"
IMAGE_TOKEN = "<image>"
"""Stands for one visual token, in the tiny language model and in any pinned one."""

_LATER_TOKENS = (BOS_TOKEN, USER_TOKEN, ASSISTANT_TOKEN, IMAGE_TOKEN, EOS_TOKEN)
_BYTES = 256
MIN_VOCABULARY_SIZE = _BYTES + 2 + len(_LATER_TOKENS)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER_TOKEN + "{% elif message['role'] == 'assistant' %}" + ASSISTANT_TOKEN
    + "{% else %}{{ raise_exception('only user and assistant speak here') }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE_TOKEN + "{{ '\\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT_TOKEN + "{% endif %}"
)  # fmt: skip


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, chat: bool = True) -> Any:
    """A `PreTrainedTokenizerFast` of at most `vocabulary_size` entries, the same for the same texts in any order.

    Raises InputError when there is no text, or no room for the 256 bytes and the markers.
    """
    if vocabulary_size < MIN_VOCABULARY_SIZE:
        raise InputError(f"vocabulary_size {vocabulary_size}: bytes and markers need at least {MIN_VOCABULARY_SIZE}")
    backend = _train_pieces(texts, vocabulary_size - len(_LATER_TOKENS) - 1)
    return _wrap(backend, chat)


def _train_pieces(texts: Iterable[str], size: int) -> Any:
    """Learn the merges, from lines: the newline is a token of its own, so that the word after it is as elsewhere."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("\n ", "\n"), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    ordered = sorted(line for text in texts for line in text.split("\n") if line.strip())
    if not ordered:
        raise InputError("a tokenizer needs at least one text; the source holds none")
    backend.train_from_iterator(ordered, trainer)
    return backend


def _wrap(backend: Any, chat: bool) -> Any:
    """Add the markers behind the learned pieces, `<eos>` last, and what each use needs."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    backend.add_tokens([AddedToken("\n", normalized=False)])
    backend.add_special_tokens(list(_LATER_TOKENS))
    if not chat:
        markers = [(token, backend.token_to_id(token)) for token in (BOS_TOKEN, EOS_TOKEN)]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS_TOKEN} $A {EOS_TOKEN}", special_tokens=markers
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        additional_special_tokens=[USER_TOKEN, ASSISTANT_TOKEN, IMAGE_TOKEN],
        clean_up_tokenization_spaces=False,
        padding_side="left" if chat else "right",
        model_input_names=["input_ids", "attention_mask"],
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
