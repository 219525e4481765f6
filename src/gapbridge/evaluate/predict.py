"""Greedy answers in batches: for the benchmarks, and for `gapbridge ask` and `gapbridge describe`.

Prompts are batched by length, padded on the left, and the answers put back in order. The same question about the
same picture is asked once. Shapes: `b` prompts of a batch, `t` tokens, `d` width of a vector, `s` pixels a side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from tqdm import tqdm

from gapbridge.corpus.pictures import BadPictureError, decode
from gapbridge.errors import ArtifactError, InputError
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
    max_new_tokens: int

    @classmethod
    def load(cls, folder: Path, batch_size: int = _BATCH_SIZE, max_new_tokens: int = _MAX_NEW_TOKENS) -> "Predictor":
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
            raise ArtifactError(f"{folder}: cannot be opened ({_one_line(error)}); train it again") from error
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = processor.tokenizer
        prompter = Prompter(tokenizer, processor.image_token)
        return cls(model, prompter, tokenizer, processor.image_processor, batch_size, max_new_tokens)

    def answers(
        self,
        questions: Sequence[str],
        places: Sequence[int],
        visuals: Visuals,
        label: str | None,
        names: Sequence[str] | None = None,
    ) -> list[str]:
        """The raw answer to each question about the picture at its place, in order; `label` names the progress bar.

        Raises InputError when a question holds a marker of the prompt, calling it by its name in `names`.
        """
        wanted = list(zip(questions, places, strict=True))
        distinct = list(dict.fromkeys(wanted))
        names = names or ["the question"] * len(questions)
        named = dict(zip(reversed(questions), reversed(names), strict=True))
        prompts = {question: self.prompt(question, name) for question, name in named.items()}
        distinct.sort(key=lambda pair: (len(prompts[pair[0]]), pair))
        found: dict[tuple[str, int], str] = {}
        with tqdm(total=len(wanted), desc=label, unit="answer", dynamic_ncols=True, disable=label is None) as progress:
            for first in range(0, len(distinct), self.batch_size):
                batch = distinct[first : first + self.batch_size]
                ids = [prompts[question] for question, _ in batch]
                found.update(zip(batch, self._generate(ids, visuals([place for _, place in batch])), strict=True))
                progress.update(len(batch))
            progress.update(len(wanted) - len(distinct))
        return [found[pair] for pair in wanted]

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
    def _generate(self, prompts: list[list[int]], visual: dict[str, torch.Tensor]) -> list[str]:
        ids, mask = pad_left(prompts, self.tokenizer.pad_token_id)
        device, dtype = self.model.device, self.model.dtype
        generated = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            **{name: value.to(device, dtype) for name, value in visual.items()},
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.prompter.end_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        answers = self.tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def ask(model: Path, image: Path, question: str) -> str:
    """The answer of the model directory `model` to `question` about the picture file `image`.

    Raises InputError for a file that is no picture, ArtifactError for a folder that is no model.
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
    pictures = [open_picture(path) for path in images]
    predictor = Predictor.load(model)
    questions = [question] * len(pictures)
    return predictor.answers(questions, range(len(pictures)), predictor.pictured(pictures), label=None)


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask (b, t), both int64."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
