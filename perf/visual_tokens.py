"""What a stage-1 sample costs with k visual tokens, beside repeating its vector 576 times.

Run: `python perf/visual_tokens.py [--repeats 576]` in a workspace after `dvc repro realign llm`. The same texts go
through the same language model, forwards and backwards, once with the k tokens of params.yaml and once with one
projected vector in 576 places; steps alternate, so that whatever else runs disturbs both alike. Time is that of the
processor, on one thread. The paper's own code pays the second price; the target is a fifteenth, better a twentieth.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from gapbridge.align.alignment import Alignment
from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.shards import Shards
from gapbridge.model.assemble import AdapterShape, ImageCap, assemble, placeholder
from gapbridge.model.llm import load_llm
from gapbridge.params import load_params
from gapbridge.train.batches import Batches
from gapbridge.train.examples import AlignedTextVectors, caption_examples, target_loss
from gapbridge.train.loop import flushed_denormals
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN

_TARGET = 15


@click.command()
@click.option("--repeats", default=576, show_default=True, help="Copies of the vector to compare with.")
@click.option("--steps", default=7, show_default=True, help="Steps timed on each side.")
@click.option("--batch-size", default=16, show_default=True, help="Samples a step; the long side needs the memory.")
@click.option("--workspace", type=click.Path(path_type=Path), default=Path())
def main(repeats: int, steps: int, batch_size: int, workspace: Path) -> None:
    """Print both medians, their ratio, and the ratio of token counts; exits 1 above the target."""
    torch.set_num_threads(1)
    settings = load_params(workspace / "params.yaml").pretrain
    few = AdapterShape(**settings.adapter.model_dump())
    many = AdapterShape(few.hidden_size, repeats, "repeat")
    sides = [_Side(workspace, shape, settings.instruction, batch_size) for shape in (few, many)]
    with flushed_denormals():
        for step in range(steps + 1):
            for side in sides:
                side.step(step)
    report = _report(sides, few.visual_tokens, repeats)
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["cost_ratio"] >= _TARGET else 1)


class _Side:
    """One way to show the language model a vector, and what its steps took."""

    def __init__(self, workspace: Path, shape: AdapterShape, instruction: str, batch_size: int) -> None:
        artifacts = workspace / "artifacts"
        alignment = Alignment.load(artifacts / "realign")
        llm, tokenizer = load_llm(artifacts / "llm")
        cap = ImageCap(alignment.image_mean, alignment.image_std)
        self.model = assemble(llm, placeholder(tokenizer, IMAGE_TOKEN), None, shape, cap, seed=0).train()
        self.model.requires_grad_(False)
        self.model.model.multi_modal_projector.requires_grad_(True)
        manifest = read_manifest(artifacts / "ingest" / "texts")
        shards = Shards.open(artifacts / "embed" / "texts" / "texts")
        texts = manifest["text"].to_list()
        examples = caption_examples(Prompter(tokenizer), texts, instruction, shape.visual_tokens)
        places = shards.places(manifest["id"].to_list())
        self.batches = Batches(examples, AlignedTextVectors(shards, alignment), places, batch_size, seed=0)
        self.text_tokens = float(np.mean([len(example.ids) - shape.visual_tokens for example in examples]))
        self.seconds: list[float] = []

    def step(self, step: int) -> None:
        """One step forwards and backwards; seconds a sample are kept."""
        batch = self.batches(step, 0, 1)
        started = time.process_time()
        loss = target_loss(self.model, batch)
        (loss.total / loss.count).backward()
        self.seconds.append((time.process_time() - started) / batch["samples"])

    def median(self) -> float:
        """Seconds of a sample; the first step warms up and does not count."""
        return statistics.median(self.seconds[1:])


def _report(sides: list[_Side], visual_tokens: int, repeats: int) -> dict[str, Any]:
    few, many = sides
    return {
        "text_tokens_mean": round(few.text_tokens, 2),
        "visual_tokens": visual_tokens,
        "repeats": repeats,
        "milliseconds_a_sample": round(few.median() * 1e3, 3),
        "milliseconds_a_sample_repeated": round(many.median() * 1e3, 3),
        "cost_ratio": round(many.median() / few.median(), 2),
        "token_ratio": round((repeats + few.text_tokens) / (visual_tokens + few.text_tokens), 2),
        "useful_token_share": round(few.batches.useful_share(few.batches.per_epoch), 4),
    }


if __name__ == "__main__":
    main()
