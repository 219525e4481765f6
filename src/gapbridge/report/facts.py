"""What the page, the card and the summary tell of: the figures of every stage and how the model was made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge import artifacts

STAGES = ("ingest", "encoder", "llm", "realign", "geometry", "pretrain", "instruct", "evaluate")
"""The stages whose figures are told."""


@dataclass(frozen=True)
class Recipe:
    """The params that say how a model was made; the defaults are the method itself, the rest its controls."""

    method: str = "realign"
    stage1: bool = True
    stage1_source: str = "aligned_text"
    stage2_source: str = "real_image"
    stage2_tune: str = "full"
    """What of the language model learns in stage 2, as in `instruct.tune`."""
    seed: int = 0
    encoder: str | None = None
    """The pinned encoder; None when it was trained here."""
    llm: str | None = None
    """The pinned language model; None when it was trained here."""
    brought: bool = False
    """Whether `encoder` is but the name of what made the vectors, which were brought along."""

    @property
    def steps(self) -> list[str]:
        """What was done, one sentence a step."""
        return [self._gap_sentence(), self._stage1_sentence(), self._stage2_sentence()]

    @property
    def base_models(self) -> list[str]:
        """The pinned models that the result is made of."""
        return [name for name in (None if self.brought else self.encoder, self.llm) if name]

    def _gap_sentence(self) -> str:
        if self.method == "none":
            return "Texts and images are unit vectors of one contrastive encoder; the gap between them is left open."
        return (
            "Texts and images that were never paired become unit vectors of one contrastive encoder, and the gap "
            f"between the two clouds is closed by a formula over their means and traces ({self.method})."
        )

    def _stage1_sentence(self) -> str:
        if not self.stage1:
            return "Stage 1 was left out."
        if self.stage1_source == "aligned_text":
            return "Stage 1: an adapter learns from texts alone to let a frozen language model read such vectors."
        return "Stage 1, as a control: the adapter learns from pictures paired with captions."

    def _stage2_sentence(self) -> str:
        real = "the vectors of a few real pictures" if self.brought else "a few real pictures"
        what = real if self.stage2_source == "real_image" else "aligned texts in place of pictures"
        learner = {"lora": "adapter and low-rank additions to the language model learn", "frozen": "the adapter learns"}
        return (
            f"Stage 2: {learner.get(self.stage2_tune, 'adapter and language model learn')} from dialogues about {what}."
        )


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of metrics/<stage>.json for every stage told of. Raises ArtifactError when one is missing."""
    return {stage: artifacts.read_json(folder / f"{stage}.json") for stage in STAGES}


def digests(metrics: Any, at: str = "") -> list[tuple[str, str]]:
    """Every value in nested metrics that is a digest (32 to 64 hexadecimal digits), with the keys that lead to it."""
    if isinstance(metrics, dict):
        return [pair for key in sorted(metrics) for pair in digests(metrics[key], f"{at}.{key}" if at else str(key))]
    is_digest = isinstance(metrics, str) and 32 <= len(metrics) <= 64 and set(metrics) <= set("0123456789abcdef")
    return [(at, metrics)] if is_digest else []
