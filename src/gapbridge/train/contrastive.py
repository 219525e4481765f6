"""A tiny open_clip dual encoder trained from scratch on pairs of pictures and texts.

Shapes: `n` pairs, `b` pairs of one batch, `d` width, `t` tokens, `s` pixels a side, `g` wordings.

Contrastive loss alone leaves a small model on a plateau for long, and some seeds for good: it finds colours
and places, not shapes. So both towers also say, during the first part of the steps, which tokens and pairs of
neighbouring tokens the text holds (classification of the text's words, as in SuperClass, arXiv 2411.03313).
The heads for that are thrown away. The temperature stays fixed, since a learnt one closes the modality gap.
A second term asks both sides for the same geometry (CyCLIP, arXiv 2205.14459): without it the sides of a small model
agree up to a linear map, not up to a shift.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gapbridge import artifacts
from gapbridge.train.loop import History, Metrics, Settings, StepLoss, fit
from gapbridge.train.optimiser import Group
from gapbridge.train.pairs import Batches, Mixing, Pairs, tokenize
from gapbridge.train.tokens import train_tokenizer

_TEXT_WIDTH, _TEXT_HEADS, _TEXT_LAYERS = 96, 3, 2


@dataclass(frozen=True)
class Architecture:
    """Size of the model; `image_size` is a multiple of 32 pixels."""

    width: int
    image_size: int
    context_length: int
    vocabulary_size: int
    logit_scale: float

    def model_cfg(self) -> dict[str, Any]:
        """The model as open_clip's configuration files say it."""
        return {
            "embed_dim": self.width,
            "vision_cfg": {"image_size": self.image_size, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": self.vocabulary_size,
                # Any name will do: for a local directory open_clip reads the tokenizer from the directory.
                "hf_tokenizer_name": "local",
                "tokenizer_kwargs": {"clean": "whitespace"},
                "width": _TEXT_WIDTH,
                "heads": _TEXT_HEADS,
                "layers": _TEXT_LAYERS,
            },
        }

    def preprocess_cfg(self) -> dict[str, Any]:
        """How a picture becomes pixels from -1 to 1."""
        return {
            "size": [self.image_size, self.image_size],
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        }


@dataclass(frozen=True)
class Recipe:
    """What a batch is and how fast the weights follow it."""

    mixing: Mixing
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    beta2: float
    clip_norm: float
    consistency_weight: float = 0.0
    """Of `consistency_loss` beside the contrastive one."""


@dataclass(frozen=True)
class Trained:
    """What training gives: the model in evaluation mode, its tokenizer, the probe's snapshots."""

    model: CLIP
    tokenizer: Any
    history: History
    snapshots: "Snapshots | None"


class Snapshots:
    """Vectors of a fixed probe and the loss's gradients at them, at evenly spaced steps (arXiv 2602.07026 §3.1)."""

    def __init__(self, probe: Pairs, count: int, steps: int) -> None:
        """The first snapshot is taken after the first step and the last one after the last."""
        self.probe = probe
        self.steps = sorted({round(step) for step in np.linspace(steps, 1, min(count, steps))})
        self.arrays: dict[str, list[np.ndarray]] = {
            name: [] for name in ("images", "texts", "image_gradients", "text_gradients")
        }

    def take(self, towers: "_Towers", tokens: Tensor) -> None:
        """Embed the probe in evaluation mode, unit rows (n, d), and differentiate the loss by them."""
        training, device = towers.training, towers.model.logit_scale.device
        towers.eval()
        with torch.no_grad():
            parts = self.probe.pictures.split(64)
            images = torch.cat([towers.images(part.to(device)) for part in parts])
            texts = torch.cat([towers.texts(part.to(device)) for part in tokens.split(64)])
        towers.train(training)
        images, texts = (_unit(side.float()).requires_grad_() for side in (images, texts))
        gradients = torch.autograd.grad(towers.loss(images, texts), (images, texts))
        for name, values in zip(self.arrays, (images, texts, *gradients), strict=True):
            self.arrays[name].append(values.detach().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write snapshots.json and an .npy of fp32 (snapshots, n, d) for vectors and gradients of each side."""
        folder.mkdir(parents=True)
        for name, values in self.arrays.items():
            np.save(folder / f"{name}.npy", np.stack(values), allow_pickle=False)
        about = {"format_version": 1, "steps": self.steps, "rows": len(self.probe.texts)}
        artifacts.write_json(folder / "snapshots.json", about)


def contrastive_loss(images: Tensor, texts: Tensor, scale: float, excluded: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of unit rows (b, d), a mean over the pairs.

    `excluded` (b, b) marks pairs of a picture and a text that are neither right nor wrong.
    """
    logits = scale * images @ texts.T
    if excluded is not None:
        logits = logits.masked_fill(excluded, float("-inf"))
    right = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def consistency_loss(images: Tensor, texts: Tensor) -> Tensor:
    """How far the sides' geometries differ: unit rows (b, d), CyCLIP's two terms, each a sum over pairs by b.

    Two pictures shall be as alike as their two texts, and picture i as like text j as picture j is like text i.
    """
    within = images @ images.T - texts @ texts.T
    across = images @ texts.T
    return (within.square().mean() + (across - across.T).square().mean()) * len(images)


def train_contrastive(
    pairs: Pairs,
    probe: Pairs,
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    snapshot_count: int,
    tracker: Metrics | None = None,
) -> Trained:
    """Train the model on `pairs`; `probe` (may be empty) is only looked at for the snapshots.

    The same arguments give the same bytes on one machine. Raises TrainingError when the loss is not a number.
    """
    tokenizer = train_tokenizer(pairs.texts, architecture.vocabulary_size, chat=False)
    batches = Batches(pairs, tokenizer, architecture.context_length, recipe.mixing, seed)
    torch.manual_seed(seed)
    scale, consistency = architecture.logit_scale, recipe.consistency_weight
    towers = _Towers(build_model(architecture), batches.wordings.shape[1], scale, consistency)
    after_step, snapshots = None, None
    if probe.texts:
        snapshots = Snapshots(probe, snapshot_count, batches.steps)
        tokens = tokenize(tokenizer, probe.texts, architecture.context_length)
        wanted = frozenset(snapshots.steps)

        def after_step(done: int) -> None:
            if done in wanted:
                snapshots.take(towers, tokens)

    # In bf16 cosines near one another would come out equal, on a GPU alone.
    settings = Settings(
        batches.steps, recipe.warmup_fraction, recipe.beta2, recipe.clip_norm, seed=seed, precision="fp32"
    )
    groups = _groups(towers, recipe)
    history = fit(towers, groups, batches, _loss_of, settings, None, tracker, "encoder", after_step=after_step)
    return Trained(towers.model, tokenizer, history, snapshots)


def build_model(architecture: Architecture) -> CLIP:
    """A model with random weights. With open_clip's own initial scales the towers never learn places."""
    config = architecture.model_cfg()
    model = CLIP(**config, init_logit_scale=math.log(architecture.logit_scale))
    with torch.no_grad():
        model.visual.attnpool.positional_embedding.normal_(0, 1)
        model.visual.attnpool.q_proj.weight.mul_(2)
        model.token_embedding.weight.normal_(0, 0.5)
        model.positional_embedding.normal_(0, 0.25)
    # The fastest layout for convolutions in fp32 on the CPU by a third.
    return model.to(memory_format=torch.channels_last)


def save_model(folder: Path, model: CLIP, tokenizer: Any, architecture: Architecture) -> None:
    """Write what `open_clip.create_model_from_pretrained("local-dir:FOLDER")` and its tokenizer loader read."""
    config = {"model_cfg": architecture.model_cfg(), "preprocess_cfg": architecture.preprocess_cfg()}
    artifacts.write_json(folder / "open_clip_config.json", config)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    artifacts.write_bytes(folder / "open_clip_model.safetensors", safetensors.torch.save(state))
    tokenizer.save_pretrained(folder)


def as_pixels(images: Iterable[Image.Image], count: int, architecture: Architecture) -> Tensor:
    """`count` pictures as the model is shown them, resized and cropped, (n, 3, s, s) uint8."""
    transform = image_transform_v2(PreprocessCfg(**architecture.preprocess_cfg()), is_train=False)
    rows = torch.empty((count, 3, architecture.image_size, architecture.image_size), dtype=torch.uint8)
    for row, image in zip(rows, images, strict=True):
        row.copy_(((transform(image) * 0.5 + 0.5) * 255).round())
    return rows


class _Towers(nn.Module):
    """The model with the heads that only training needs."""

    def __init__(self, model: CLIP, wordings: int, scale: float, consistency: float) -> None:
        super().__init__()
        self.model, self.scale, self.consistency = model, scale, consistency
        width = model.text_projection.shape[1]
        self.image_wording, self.text_wording = nn.Linear(width, wordings), nn.Linear(width, wordings)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Mean loss of a pair of the batch."""
        images, texts = self.images(batch["pictures"]), self.texts(batch["tokens"])
        loss = self.loss(_unit(images), _unit(texts), batch["excluded"])
        if batch["wording_weight"]:
            for given in (self.image_wording(images), self.text_wording(texts)):
                missed = functional.binary_cross_entropy_with_logits(given, batch["wordings"], reduction="sum")
                loss = loss + batch["wording_weight"] * missed / len(images)
        return loss

    def loss(self, images: Tensor, texts: Tensor, excluded: Tensor | None = None) -> Tensor:
        """What unit rows (b, d) of both sides cost, without the wordings."""
        loss = contrastive_loss(images, texts, self.scale, excluded)
        return loss + self.consistency * consistency_loss(images, texts) if self.consistency else loss

    def images(self, pictures: Tensor) -> Tensor:
        """Features (b, d) of pictures (b, 3, s, s) uint8, before they are brought to length one."""
        pixels = pictures.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        return self.model.encode_image(pixels)

    def texts(self, tokens: Tensor) -> Tensor:
        """Features (b, d) of tokens (b, t), before they are brought to length one.

        The text tower looks backwards only, so the padding behind the longest text can be left out.
        """
        model, length = self.model, int((tokens != 0).sum(1).max())
        tokens = tokens[:, :length]
        states = model.token_embedding(tokens) + model.positional_embedding[:length]
        states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
        ends = states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(1)]
        return ends @ model.text_projection


def _loss_of(towers: nn.Module, batch: dict[str, Any]) -> StepLoss:
    rows = len(batch["tokens"])
    return StepLoss(towers(batch) * rows, rows, int((batch["tokens"] != 0).sum()), rows)


def _groups(towers: _Towers, recipe: Recipe) -> list[Group]:
    """Weight decay on matrices alone; the temperature is in no group and thus stays."""
    named = [(name, parameter) for name, parameter in towers.named_parameters() if name != "model.logit_scale"]
    matrices = [parameter for _, parameter in named if parameter.ndim >= 2]
    vectors = [parameter for _, parameter in named if parameter.ndim < 2]
    return [Group(matrices, recipe.learning_rate, recipe.weight_decay), Group(vectors, recipe.learning_rate, 0.0)]


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=-1)
