"""pretrain: stage 1, the adapter learns to let the frozen language model read vectors (arXiv 2602.07026 §5).

Reads texts with their vectors, aligned on the fly (or, as a control, pictures' vectors with their captions), the
alignment and the language model; writes adapter.safetensors, adapter.json and losses.parquet.
"""

from dataclasses import asdict
from typing import Any

import torch

from gapbridge.align.alignment import Alignment
from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.encoders import read_about
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.assemble import AdapterShape, ImageCap, assemble, placeholder
from gapbridge.model.llm import load_llm
from gapbridge.params import InstructParams, PretrainParams
from gapbridge.stages.runner import StageRun
from gapbridge.train.batches import packs_exactly
from gapbridge.train.examples import AlignedTextVectors, ImageVectors, caption_examples
from gapbridge.train.loop import in_bf16
from gapbridge.train.prompts import Prompter, record_names
from gapbridge.train.tokens import IMAGE_TOKEN
from gapbridge.train.tuning import shrink_frozen
from gapbridge.train.visual import Course, Material, groups_of, save_adapter, train


def run(stage: StageRun) -> dict[str, Any]:
    """Train the adapter, or write it untrained where `enabled` is false; the figures say which."""
    settings = stage.params.pretrain
    torch.set_num_threads(settings.threads)
    llm, tokenizer = load_llm(stage.artifact("llm"))
    alignment = Alignment.load(stage.artifact("realign"))
    if alignment.fingerprint != read_about(stage.artifact("encoder"))["fingerprint"]:
        raise ArtifactError("artifacts/realign: of another encoder than artifacts/encoder; run embed and realign again")
    shape = AdapterShape(**settings.adapter.model_dump())
    image_token_id = placeholder(tokenizer, IMAGE_TOKEN)
    cap = ImageCap(alignment.image_mean, alignment.image_std)
    model = assemble(llm, image_token_id, None, shape, cap, stage.params.seed)
    adapter = model.model.multi_modal_projector
    figures: dict[str, Any] = {}
    if settings.enabled:
        packed = packs_exactly(model)  # found out before weights lose precision
        material = _material(stage, alignment, Prompter(tokenizer), packed)
        groups = groups_of(adapter, settings.training.learning_rate, settings.training.weight_decay)
        if in_bf16(settings.precision):
            shrink_frozen(model, groups)
        course = course_of(settings, stage.params.seed)
        history, figures = train(model, groups, material, course, stage.scratch, stage.tracker, "pretrain")
        history.frame().write_parquet(stage.out / "losses.parquet")
    source = settings.source if settings.enabled else None
    method = alignment.method if source == "aligned_text" else None
    save_adapter(stage.out, adapter, {**asdict(shape), "encoder_fingerprint": alignment.fingerprint, "source": source})
    told = {"enabled": settings.enabled, "trained": settings.enabled, "source": source, "aligner": method}
    return told | {"visual_tokens": shape.visual_tokens} | figures


def course_of(settings: PretrainParams | InstructParams, seed: int) -> Course:
    """The params of a stage that trains, as the training rooms take them."""
    training, checkpoint = settings.training, settings.checkpoint
    return Course(
        training.steps,
        training.batch_size,
        training.warmup_fraction,
        training.beta2,
        training.clip_norm,
        checkpoint.every_steps,
        checkpoint.heldout_every_steps,
        checkpoint.heldout_rows,
        seed,
        settings.precision,
        settings.gradient_checkpointing,
    )


def _material(stage: StageRun, alignment: Alignment, prompter: Prompter, packed: bool) -> Material:
    settings = stage.params.pretrain
    paired = settings.source == "paired_image"
    name, column = ("images", "caption") if paired else ("texts", "text")
    manifest = read_manifest(stage.artifact("ingest", name))
    if manifest[column].null_count():
        raise InputError(
            "pretrain.source paired_image: the pictures have no captions; set sources.images.captions to true"
        )
    shards = Shards.open(stage.artifact("embed", name, name), alignment.fingerprint, alignment.width)
    ids, texts = manifest["id"].to_list(), manifest[column].to_list()
    prompter.ask(settings.instruction, name="pretrain.instruction")  # refused by its own name, not by the first text's
    visual_tokens = settings.adapter.visual_tokens
    examples = caption_examples(prompter, texts, settings.instruction, visual_tokens, record_names(name, ids))
    vectors = ImageVectors(shards) if paired else AlignedTextVectors(shards, alignment)
    noise = settings.noise * alignment.image_trace**0.5
    return Material(examples, manifest["group_id"].to_list(), vectors, shards.places(ids), packed, noise)
