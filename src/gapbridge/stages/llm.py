"""The language model: trained here from the records of the set `llm`, or pinned."""

from typing import Any

import torch

from gapbridge.corpus.manifest import read_manifest
from gapbridge.errors import InputError
from gapbridge.model.llm import pin_llm, save_llm
from gapbridge.params import LlmParams
from gapbridge.stages.runner import StageRun
from gapbridge.train.language import Architecture, Recipe, train_language
from gapbridge.train.prompts import Prompter


def run(stage: StageRun) -> dict[str, Any]:
    """Write the model's folder, or llm.json alone for a pinned one; return what is known about it."""
    settings = stage.params.llm
    torch.set_num_threads(settings.threads)
    if settings.pretrained is not None:
        tokenizer = pin_llm(stage.out, settings.pretrained, settings.revision)
        Prompter(tokenizer)  # says at once when the model has no chat template, or one that is of no use here
        return {"pretrained": settings.pretrained, "revision": settings.revision, "vocabulary": len(tokenizer)}
    rows = read_manifest(stage.artifact("ingest", "llm")).to_dicts()
    if not rows:
        raise InputError("sources.llm: no rows; name texts to learn from, or a model in llm.pretrained")
    trained = train_language(
        rows, _architecture(settings), _recipe(settings), stage.params.seed, stage.scratch, stage.tracker
    )
    save_llm(stage.out, trained.model, trained.tokenizer)
    trained.history.frame().write_parquet(stage.out / "losses.parquet")
    return trained.metrics


def _architecture(settings: LlmParams) -> Architecture:
    return Architecture(
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        layers=tuple(settings.layers),
        attention_heads=settings.attention_heads,
        conv_kernel=settings.conv_kernel,
        vocabulary_size=settings.vocabulary_size,
    )


def _recipe(settings: LlmParams) -> Recipe:
    return Recipe(**settings.training.model_dump(), context_weight=settings.context_weight)
