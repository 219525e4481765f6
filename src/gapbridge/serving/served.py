"""A model that is served: what it is called, and a chat brought into the numbers that it reads.

Shapes: `t` tokens, `s` pixels a side.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.probe import read_probe
from gapbridge.model.llm import hide_kernel_notice
from gapbridge.serving.chat import Conversation
from gapbridge.serving.refusals import invalid

# No tokenizer makes so few tokens of so much text: what is longer need not be tokenized to be too long.
_MOST_CHARACTERS_A_TOKEN = 32


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model in memory. `name` is what clients call it, through all its versions."""

    name: str
    version: str
    digest: str
    predictor: Predictor
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)
    """Fast tokenizers change themselves while they encode."""

    @classmethod
    def load(cls, folder: Path, name: str, version: str, digest: str, min_probe_agreement: float) -> "ServedModel":
        """Open the model in `folder` and ask it its probe questions; without any, one question of our own.

        Raises ArtifactError where it does not open, or gives too few of the answers that it gave when evaluated.
        """
        hide_kernel_notice()
        model = cls(name, version, digest, Predictor.load(folder))
        probe = read_probe(folder)
        if probe is None:
            grey = [Image.new("RGB", (64, 64), "grey")]
            asked = [Request("the first question", "what is it", 0, 1)]
            model.predictor.answers(asked, model.predictor.pictured(grey), label=None)
            return model
        try:
            differing = probe.differing(model.predictor)
        except InputError as error:
            raise ArtifactError(f"{folder}: its probe cannot be asked ({error}); register the model again") from error
        questions = len(probe.questions)
        if questions - len(differing) < min_probe_agreement * questions:
            raise ArtifactError(
                f"{name} {version}: {len(differing)} of {questions} probe questions are answered otherwise than when it"
                " was evaluated; register the model again"
            )
        return model

    @property
    def label(self) -> str:
        """Name, version and digest in one word."""
        return f"{self.name}/{self.version}-{self.digest[:8]}"

    @property
    def fingerprint(self) -> str:
        """Of the encoder whose vectors it reads."""
        return self.predictor.model.config.vision_config.encoder_fingerprint or "unknown"

    @property
    def context_tokens(self) -> int | None:
        """How many tokens prompt and answer may have together, where the language model has a limit."""
        return getattr(self.predictor.model.config.text_config, "max_position_embeddings", None)

    def prompt(self, chat: Conversation, max_tokens: int) -> list[int]:
        """Ids (t,) up to where the answer begins. Raises RefusalError where they are too many, or hold a marker."""
        too_long = invalid(
            "context_length_exceeded", f"messages: more than {max_tokens} tokens; leave out earlier turns"
        )
        if chat.characters > max_tokens * _MOST_CHARACTERS_A_TOKEN:
            raise too_long
        visual_tokens = self.predictor.model.config.visual_tokens
        try:
            with self._tokenizing:
                ids = self.predictor.prompter.ask(chat.question, visual_tokens, history=chat.history)
        except InputError as error:
            raise invalid("invalid_messages", f"messages: {error}") from error
        if len(ids) > max_tokens:
            raise too_long
        return ids

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """The picture as the encoder reads it, (3, s, s)."""
        inputs: Any = self.predictor.image_processor(images=[picture], return_tensors="pt")
        return inputs["pixel_values"][0]

    def text(self, ids: list[int]) -> str:
        """The words of an answer's tokens, without white space around them."""
        with self._tokenizing:
            return self.predictor.tokenizer.decode(ids, skip_special_tokens=True).strip()
