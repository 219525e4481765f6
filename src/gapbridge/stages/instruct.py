"""instruct: stage 2, adapter and language model learn to answer about pictures (arXiv 2602.07026 §5).

The adapter learns whole; of the language model learn all weights, low-rank additions to them (merged at the end), or
none.

Reads dialogues with the vectors of their pictures (or, without any picture, the aligned vectors of their contexts),
the encoder, the language model and the adapter; writes the final model as a Hugging Face directory, its losses in
training/losses.parquet.
"""

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from gapbridge.align.alignment import Alignment
from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.encoders import BROUGHT, load_image_half, read_about
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, placeholder, save
from gapbridge.model.llm import load_llm
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.params import InstructParams
from gapbridge.stages.pretrain import course_of
from gapbridge.stages.runner import StageRun
from gapbridge.train.batches import Vectors, packs_exactly
from gapbridge.train.examples import AlignedTextVectors, ImageVectors, dialogue_examples
from gapbridge.train.loop import in_bf16
from gapbridge.train.optimiser import Group
from gapbridge.train.prompts import Prompter, record_names
from gapbridge.train.tokens import IMAGE_TOKEN
from gapbridge.train.tuning import Lora, LoraTuning, shrink_frozen
from gapbridge.train.visual import Material, groups_of, load_adapter, read_card, train

_log = logging.getLogger(__name__)


def run(stage: StageRun) -> dict[str, Any]:
    """Train adapter and language model, each at its own learning rate, and write the whole model."""
    settings = stage.params.instruct
    torch.set_num_threads(settings.threads)
    card = read_card(stage.artifact("pretrain"))
    llm, tokenizer = load_llm(stage.artifact("llm"))
    image_token_id = placeholder(tokenizer, IMAGE_TOKEN)
    prompter = Prompter(tokenizer)  # after the placeholder is known to the tokenizer
    tower = _tower(stage, card["encoder_fingerprint"])
    shape = AdapterShape(card["hidden_size"], card["visual_tokens"], card["expansion"])
    alignment = Alignment.load(stage.artifact("realign"), fingerprint=card["encoder_fingerprint"])
    cap = ImageCap(alignment.image_mean, alignment.image_std)
    model = assemble(llm, image_token_id, tower, shape, cap, stage.params.seed, card["encoder_fingerprint"])
    load_adapter(stage.artifact("pretrain"), model.model.multi_modal_projector)
    material = _material(stage, alignment, prompter, shape.visual_tokens, packs_exactly(model))
    groups, lora = _learners(model, llm, settings, stage.params.seed)
    if in_bf16(settings.precision):
        shrink_frozen(model, groups)
    course = course_of(settings, stage.params.seed)
    history, figures = train(model, groups, material, course, stage.scratch, stage.tracker, "instruct")
    if not stage.writes:
        return figures
    model.cpu().float()
    if lora:
        lora.merge()
    processor = make_processor(tokenizer, tower, shape.visual_tokens, IMAGE_TOKEN)
    save(model, processor, prompter.end_id, stage.out)
    (stage.out / "training").mkdir()
    history.frame().write_parquet(stage.out / "training" / "losses.parquet")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told = {"source": settings.source, "tune": settings.tune, "visual_tokens": shape.visual_tokens}
    return told | {"parameters": parameters} | figures


def _learners(
    model: GapbridgeForConditionalGeneration, llm: PreTrainedModel, settings: InstructParams, seed: int
) -> tuple[list[Group], LoraTuning | None]:
    """Everything that learns, with its learning rate, and the additions where the language model learns by them."""
    decay = settings.training.weight_decay
    groups = groups_of(model.model.multi_modal_projector, settings.training.learning_rate, decay)
    if settings.tune == "full":
        return [*groups, *groups_of(llm, settings.llm_learning_rate, decay)], None
    if settings.tune == "frozen":
        return groups, None
    lora = LoraTuning(model, Lora(**settings.lora.model_dump()), seed)
    return [*groups, Group(lora.parameters, settings.llm_learning_rate, decay)], lora


def _tower(stage: StageRun, fingerprint: str) -> ImageTower | None:
    """The encoder's image half; none where vectors were brought along, which the model then takes itself."""
    about = read_about(stage.artifact("encoder"))
    if about["fingerprint"] != fingerprint:
        raise ArtifactError("artifacts/encoder: not the encoder that the adapter was trained for; run pretrain again")
    if about["kind"] == BROUGHT:
        _log.info("instruct: the model has no image tower and takes vectors, since these were brought along")
        return None
    half = load_image_half(stage.artifact("encoder"))
    return ImageTower(half.visual, half.architecture, half.preprocess_cfg, fingerprint)


def _material(stage: StageRun, alignment: Alignment, prompter: Prompter, visual_tokens: int, packed: bool) -> Material:
    manifest = read_manifest(stage.artifact("ingest", "instruct"))
    ids, turns = manifest["id"].to_list(), manifest["turns"].to_list()
    shards, vectors = _vectors(stage, alignment)
    examples = dialogue_examples(prompter, turns, visual_tokens, record_names("instruct", ids))
    return Material(examples, manifest["group_id"].to_list(), vectors, shards.places(ids), packed)


def _vectors(stage: StageRun, alignment: Alignment) -> tuple[Shards, Vectors]:
    folder = stage.artifact("embed", "instruct")
    if stage.params.instruct.source == "real_image":
        shards = Shards.open(folder / "images", alignment.fingerprint, alignment.width)
        return shards, ImageVectors(shards)
    if not (folder / "texts").exists():
        raise InputError(
            "instruct.source aligned_text: some rows have no context (or no vector); give each one, or use real_image"
        )
    shards = Shards.open(folder / "texts", alignment.fingerprint, alignment.width)
    return shards, AlignedTextVectors(shards, alignment)
