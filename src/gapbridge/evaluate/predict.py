"""Greedy answers in batches: for the benchmarks, and for `gapbridge ask` and `gapbridge describe`.

Prompts are batched by length, padded on the left, and the answers put back in order (`generation`). Shapes: `b` prompts
of a batch, `t` tokens, `d` width of a vector, `s` pixels a side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from gapbridge.corpus.pictures import BadPictureError, decode
from gapbridge.embeddings.brought import read_vector
from gapbridge.errors import ArtifactError, InputError, one_line
from gapbridge.evaluate.generation import KeptAnswers, Request, answer_all
from gapbridge.train.prompts import Prompter

DESCRIBE = "describe the picture"
_MAX_PIXELS = 40_000_000
_BATCH_SIZE = 16
_MAX_NEW_TOKENS = 64

Visuals = Callable[[list[int]], dict[str, torch.Tensor]]
"""The model's inputs for the pictures at those places: `visual_embeds` (b, d) or `pixel_values` (b, 3, s, s)."""


@dataclass(frozen=True)
class Predictor:
    """A trained model that answers questions about pictures, always the same for the same questions."""

    model: Any
    prompter: Prompter
    tokenizer: Any
    image_processor: Any
    batch_size: int

    @classmethod
    def load(cls, folder: Path, batch_size: int = _BATCH_SIZE) -> "Predictor":
        """Open a model directory, on the GPU where there is one.

        Raises ArtifactError when `folder` holds no such model.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils.logging import disable_progress_bar

        # Weights are read in a moment: a bar for them would hide the one line that matters.
        disable_progress_bar()
        if not (folder / "config.json").exists():
            raise ArtifactError(f"{folder}: not a model directory; run `dvc repro instruct`")
        try:
            model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ArtifactError(f"{folder}: cannot be opened ({one_line(error)}); train it again") from error
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = processor.tokenizer
        prompter = Prompter(tokenizer, processor.image_token)
        return cls(model, prompter, tokenizer, processor.image_processor, batch_size)

    def answers(
        self, requests: Sequence[Request], visuals: Visuals, label: str | None, kept: KeptAnswers | None = None
    ) -> list[str]:
        """The raw answer to each request, in order; `label` names the progress bar (`generation.answer_all`).

        Raises InputError when a question holds a marker of the prompt.
        """
        names = {request.question: request.name for request in reversed(requests)}
        prompts = {question: self.prompt(question, name) for question, name in names.items()}

        def generate(batch: Sequence[Request]) -> list[str]:
            ids = [prompts[request.question] for request in batch]
            return self._generate(ids, visuals([request.picture for request in batch]), batch[0].max_new_tokens)

        return answer_all(
            requests, generate, lambda request: len(prompts[request.question]), self.batch_size, kept, label
        )

    def prompt(self, question: str, name: str = "the question") -> list[int]:
        """Ids of `question` about a picture, up to where the answer begins; errors call it by `name`."""
        return self.prompter.ask(question, visual_tokens=self.model.config.visual_tokens, name=name)

    def embedded(self, vectors: np.ndarray) -> Visuals:
        """Pictures given as unit vectors (n, d)."""

        def visuals(places: list[int]) -> dict[str, torch.Tensor]:
            return {"visual_embeds": torch.from_numpy(vectors[places])}

        return visuals

    def pictured(self, pictures: Sequence[Image.Image]) -> Visuals:
        """Pictures given as such."""

        def visuals(places: list[int]) -> dict[str, torch.Tensor]:
            return dict(self.image_processor(images=[pictures[place] for place in places], return_tensors="pt"))

        return visuals

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], visual: dict[str, torch.Tensor], max_new_tokens: int) -> list[str]:
        ids, mask = pad_left(prompts, self.tokenizer.pad_token_id)
        device, dtype = self.model.device, self.model.dtype
        generated = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            **{name: value.to(device, dtype) for name, value in visual.items()},
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.prompter.end_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        answers = self.tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def ask(model: Path, image: Path, question: str) -> str:
    """The answer of the model directory `model` to `question` about the picture file `image`.

    A `.npy` file holds a vector of the model's encoder in the picture's place. Raises InputError for a file that is no
    picture, or for any where the model takes vectors alone, ArtifactError for a folder that is no model.
    """
    if not question.strip():
        raise InputError("the question is empty; ask something about the picture")
    return _answers(model, [image], question)[0]


def describe(model: Path, images: Sequence[Path]) -> list[str]:
    """What each of the picture files shows, in order; raises as `ask` does."""
    return _answers(model, images, DESCRIBE)


def open_picture(path: Path) -> Image.Image:
    """The picture file at `path` as RGB. Raises InputError when it is missing, damaged, huge, or no picture."""
    try:
        with path.open("rb") as handle:
            return decode(handle, _MAX_PIXELS)
    except (OSError, BadPictureError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: {reason}; give a PNG, JPEG or WebP file") from error


def _answers(model: Path, images: Sequence[Path], question: str) -> list[str]:
    vectors = [place for place, path in enumerate(images) if path.suffix.lower() == ".npy"]
    others = [place for place in range(len(images)) if place not in vectors]
    pictures = [open_picture(images[place]) for place in others]
    predictor = Predictor.load(model)
    about = predictor.model.config.vision_config
    if pictures and about.architecture is None:
        raise InputError(
            f"{images[others[0]]}: {model} has no image tower, since it learned from vectors that were brought along;"
            f" give a vector of the same encoder, of width {about.hidden_size}, as a .npy file"
        )
    rows = np.array([read_vector(images[place], about.hidden_size) for place in vectors])
    requests = [Request("the question", question, place, _MAX_NEW_TOKENS) for place in range(len(images))]
    answers = predictor.answers(requests[: len(others)], predictor.pictured(pictures), label=None)
    answers += predictor.answers(requests[: len(rows)], predictor.embedded(rows), label=None)
    return [answer for _, answer in sorted(zip(others + vectors, answers, strict=True))]


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask (b, t), both int64."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)
