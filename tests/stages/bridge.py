"""Artifacts that stages 1 and 2 read, made in a second: 60 texts, 40 pictures' vectors, an untrained tiny LLM.

Vectors are noise about two means (d = 16), one a modality.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapbridge.align import Side, fit_held_out
from gapbridge.artifacts import write_json
from gapbridge.corpus.manifest import write_manifest
from gapbridge.embeddings.encoders import FORMAT_VERSION
from gapbridge.embeddings.shards import Shards, write_shards
from gapbridge.embeddings.towers import ImageHalf
from gapbridge.model.llm import save_llm
from gapbridge.model.vision import build_tower
from gapbridge.params import load_params
from gapbridge.stages.runner import StageRun
from gapbridge.train.language import Architecture, build
from gapbridge.train.tokens import train_tokenizer

WIDTH = 16
TEXTS = [f"a {color} {shape} on the {side}" for color in ("red", "blue", "green", "teal", "pink")
         for shape in ("ring", "dot", "cross") for side in ("left", "right", "top", "middle")]  # fmt: skip
QUESTIONS = [("what color is it", "red"), ("where is it", "left"), ("describe the picture", "a red ring")]
TRAINING = {"batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.01, "warmup_fraction": 0.1}
CHECKPOINT = {"every_steps": 4, "heldout_every_steps": 6, "heldout_rows": 8}
PRETRAIN: dict[str, Any] = {
    "threads": 1,
    "noise": 0.2,
    "adapter": {"hidden_size": 24, "visual_tokens": 3, "expansion": "heads"},
    "training": {"steps": 12, **TRAINING},
    "checkpoint": CHECKPOINT,
}
INSTRUCT: dict[str, Any] = {
    "threads": 1,
    "llm_learning_rate": 0.003,
    "training": {"steps": 12, **TRAINING},
    "checkpoint": CHECKPOINT,
}


class Notes:
    """A tracker that can stop the stage after some step, as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        if self.stop_after is not None and step > self.stop_after:
            raise KeyboardInterrupt

    def finish(self, outs: Any, metrics: Any) -> None:
        pass


def fill(workspace: Path, captions: bool = False, contexts: bool = True) -> None:
    """Write artifacts/{ingest,embed,realign,llm} of the sets that the two stages read."""
    pictured = [_pictured(number) for number in range(40)]
    write(workspace, "texts", [{**_record(n), "text": text} for n, text in enumerate(TEXTS)], "texts", -0.3)
    write(workspace, "images", [{**one, "caption": TEXTS[n] if captions else None} for n, one in enumerate(pictured)])
    turns = [{"question": question, "answer": answer} for question, answer in QUESTIONS]
    dialogues = [
        {**one, "context": TEXTS[n] if contexts or n else None, "turns": turns} for n, one in enumerate(pictured)
    ]
    write(workspace, "instruct", dialogues)
    if contexts:
        vectors(workspace, "instruct", dialogues, "texts", -0.3)
    about = {"format_version": FORMAT_VERSION, "kind": "open_clip", "fingerprint": "f"}
    write_json(workspace / "artifacts/encoder/encoder.json", about)
    _align(workspace)
    _language_model(workspace)


def stage(workspace: Path, name: str, stop_after: int | None = None) -> StageRun:
    """One run of a stage with its own `out` and a scratch folder that a second run finds again."""
    out, scratch = workspace / "artifacts" / name, workspace / "scratch" / name
    out.mkdir(exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    params = load_params(workspace / "params.yaml")
    return StageRun(name, None, params, workspace, out, scratch, Notes(stop_after))


def image_half(folder: Path) -> ImageHalf:
    """What `load_image_half` would give: a tiny ResNet tower."""
    architecture = {
        "embed_dim": WIDTH,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32},
    }
    torch.manual_seed(0)
    preprocess = {"size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3]}
    return ImageHalf(build_tower(architecture).eval(), architecture, preprocess)


def write(workspace: Path, name: str, records: list[dict[str, Any]], side: str = "images", mean: float = 0.3) -> None:
    """A manifest and its vectors."""
    kind = {"texts": "text", "images": "image", "instruct": "dialogue"}[name]
    write_manifest(workspace / "artifacts/ingest" / name, kind, records, [])
    vectors(workspace, name, records, side, mean)


def vectors(workspace: Path, name: str, records: list[dict[str, Any]], side: str, mean: float) -> Shards:
    """Unit rows about `mean` for the records, in the order of their ids."""
    random = np.random.default_rng(len(name) + len(side))
    rows = random.normal(mean, 0.25, (len(records), WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = sorted(record["id"] for record in records)
    return write_shards(workspace / "artifacts/embed" / name / side, [(ids, rows)], "f", 32)


def _record(number: int) -> dict[str, Any]:
    return {"id": f"r{number:03d}", "group_id": f"g{number:03d}", "source": "test"}


def _pictured(number: int) -> dict[str, Any]:
    return {**_record(number), "image": f"root:{number}.png", "sha256": f"{number:064x}", "width": 8, "height": 8}


def _align(workspace: Path) -> None:
    texts, images = (Shards.open(workspace / "artifacts/embed" / name / name) for name in ("texts", "images"))
    sides = [Side(shards.read(range(shards.rows)), shards.groups) for shards in (texts, images)]
    alignment = fit_held_out(*sides)[0].with_origin("f", {})
    folder = workspace / "artifacts/realign"
    folder.mkdir()
    alignment.save(folder)


def _language_model(workspace: Path) -> None:
    folder = workspace / "artifacts/llm"
    folder.mkdir()
    words = [*TEXTS, *(text for turn in QUESTIONS for text in turn)]
    tokenizer = train_tokenizer(words, 330)
    save_llm(folder, build(Architecture(32, 48, ("conv", "full_attention"), 2, 3, 330), tokenizer, 0), tokenizer)
