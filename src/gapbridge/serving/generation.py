"""Answers to a batch of requests, each told about its own words as they come.

Shapes: `b` requests of a batch, `t` tokens, `v` vocabulary, `d` width of a vector, `s` pixels a side.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from gapbridge.evaluate.predict import pad_left
from gapbridge.serving.served import ServedModel


@dataclass(frozen=True)
class Piece:
    """Some more words of an answer."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The whole answer, and why it ended: the model said so, or it was as long as it may be."""

    text: str
    reason: Literal["stop", "length"]
    answer_tokens: int


@dataclass(frozen=True)
class Failed:
    """There is no answer; the log tells why, under this number."""

    number: str


@dataclass(eq=False)
class Job:
    """A request on its way through the model. `tell` may be called from any thread."""

    model: ServedModel
    prompt: list[int]
    pixels: torch.Tensor
    max_answer_tokens: int
    deadline: float
    """On the monotonic clock; nobody waits for the answer afterwards."""
    tell: Callable[[Piece | Finished | Failed], None]
    stream: bool = False
    temperature: float = 0.0
    seed: int = 0
    cancelled: bool = False
    ended: bool = field(default=False, init=False)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not (self.cancelled or self.ended or time.monotonic() > self.deadline)

    def end(self, outcome: Finished | Failed) -> None:
        """Tell the outcome, once."""
        if not self.ended:
            self.ended = True
            self.tell(outcome)


@torch.inference_mode()
def answer(jobs: Sequence[Job]) -> np.ndarray:
    """Answer jobs of one model together; greedy answers are those that each would get alone.

    Returns the pictures' unit vectors (b, d), float32.
    """
    predictor = jobs[0].model.predictor
    model = predictor.model
    pixels = torch.stack([job.pixels for job in jobs]).to(model.device, model.dtype)
    vectors = model.model.vision_tower(pixels).pooler_output
    ids, mask = pad_left([job.prompt for job in jobs], predictor.tokenizer.pad_token_id)
    model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        visual_embeds=vectors,
        do_sample=False,
        max_new_tokens=max(job.max_answer_tokens for job in jobs),
        eos_token_id=predictor.prompter.end_id,
        pad_token_id=predictor.tokenizer.pad_token_id,
        logits_processor=LogitsProcessorList([_Chance(jobs)] if any(job.temperature for job in jobs) else []),
        stopping_criteria=StoppingCriteriaList([_Progress([_Row(job, predictor.prompter.end_id) for job in jobs])]),
    )
    return vectors.float().cpu().numpy()


class _Row:
    """One answer as it grows."""

    def __init__(self, job: Job, end_id: int) -> None:
        self._job, self._end_id, self._ids, self._told = job, end_id, list[int](), ""

    def take(self, token: int) -> bool:
        """Add a token; returns whether the answer ends here."""
        job = self._job
        if not job.wanted:
            return True
        if token != self._end_id:
            self._ids.append(token)
        ended, full = token == self._end_id, len(self._ids) >= job.max_answer_tokens
        if job.stream or ended or full:
            self._tell(ended, full)
        return ended or full

    def _tell(self, ended: bool, full: bool) -> None:
        text = self._job.model.text(self._ids)
        last = ended or full
        # The last character may be half there, and a decoder may take back what it said until a word is whole.
        if self._job.stream and text.startswith(self._told) and (last or not text.endswith("\ufffd")):
            if text != self._told:
                self._job.tell(Piece(text[len(self._told) :]))
            self._told = text
        if last:
            self._job.end(Finished(text, "stop" if ended else "length", len(self._ids)))


class _Progress(StoppingCriteria):
    """Hands each row its newest token, and ends the rows that are done or that nobody waits for."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self._rows = rows
        self._done = [False] * len(rows)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        for place, token in enumerate(input_ids[:, -1].tolist()):
            self._done[place] = self._done[place] or self._rows[place].take(token)
        return torch.tensor(self._done, device=input_ids.device)  # type: ignore[return-value]


class _Chance(LogitsProcessor):
    """Draws tokens by chance in the rows that ask for it: the largest of logits with Gumbel noise is such a draw."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._temperatures = [job.temperature for job in jobs]
        self._random = [torch.Generator().manual_seed(job.seed & (2**63 - 1)) for job in jobs]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        noisy = scores.clone()  # (b, v)
        for place, temperature in enumerate(self._temperatures):
            if temperature > 0:
                uniform = torch.rand(scores.shape[1], generator=self._random[place], dtype=torch.float64)
                noise = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
                # The same choice as that of scores / temperature + noise, which the least temperatures make infinite.
                noisy[place] = scores[place] + temperature * noise.to(scores)
        return noisy  # type: ignore[return-value]
