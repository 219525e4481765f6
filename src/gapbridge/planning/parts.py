"""The pinned parts of a run, from their settings and the headers of their weights alone; no weight is read."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbridge.embeddings.towers import LLM2CLIP, TRANSFORMERS
from gapbridge.params import EncoderParams, LlmParams

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_VISION = re.compile(r"(^|\.)(visual|vision_model|vision_tower|visual_projection)\.")
_LARGEST_HEADER_BYTES = 1 << 28


@dataclass(frozen=True)
class Checkpoint:
    """One folder of weights, or a hub model that is not here yet (`folder` is None)."""

    name: str
    folder: Path | None
    size_bytes: int
    parameters: int
    vision_parameters: int
    config: Mapping[str, Any]
    missing: Sequence[str]
    remarks: Sequence[str]


@dataclass(frozen=True)
class EncoderPlan:
    """The dual encoder: its width d, the parameters of its halves, and the places of a picture that are computed."""

    checkpoints: Sequence[Checkpoint]
    width: int | None
    text_parameters: int | None
    vision_parameters: int | None
    picture_tokens: int | None


def plan_encoder(workspace: Path, params: EncoderParams) -> EncoderPlan:
    """Of the encoder that params.yaml names; of one that is trained here only the width is known."""
    if params.pretrained is None:
        return EncoderPlan((), params.width, None, None, None)
    if params.is_brought:
        return EncoderPlan((), None, None, None, None)
    revisions = (params.revision or "").split("+")
    name = params.pretrained
    if name.startswith(LLM2CLIP):
        names = name.removeprefix(LLM2CLIP).split("+")
    elif name.startswith((TRANSFORMERS, "local-dir:", "hf-hub:")):
        names = [name.partition(":")[2]]
    else:
        return EncoderPlan((_to_fetch(name),), _open_clip_width(name), None, None, None)
    revisions += [""] * len(names)
    found = [_checkpoint(workspace, one, commit or None) for one, commit in zip(names, revisions, strict=False)]
    known = all(one.folder is not None and not one.missing for one in found)
    vision = sum(one.vision_parameters for one in found)
    whole = sum(one.parameters for one in found)
    config = found[0].config
    return EncoderPlan(
        found, _width(config), whole - vision if known else None, vision if known else None, _picture_tokens(config)
    )


def plan_llm(workspace: Path, params: LlmParams) -> Checkpoint | None:
    """Of the language model that params.yaml names, or of the one that was trained here before; None without one."""
    if params.pretrained is not None:
        return _checkpoint(workspace, params.pretrained, params.revision)
    trained = workspace / "artifacts/llm"
    return _checkpoint(workspace, "artifacts/llm", None) if (trained / "config.json").exists() else None


def _checkpoint(workspace: Path, name: str, revision: str | None) -> Checkpoint:
    folder = workspace / name
    if not folder.is_dir():
        if revision is None or not _HUB_ID.fullmatch(name):
            return Checkpoint(name, None, 0, 0, 0, {}, (f"{name}/ (the folder of a model)",), ())
        cached = _cached(name, revision)
        if cached is None:
            return _to_fetch(name)
        folder = cached
    weights = sorted(folder.glob("*.safetensors"))
    config = next((folder / one for one in ("config.json", "open_clip_config.json") if (folder / one).is_file()), None)
    missing = [] if weights else [f"{name}/*.safetensors"]
    missing += [] if config else [f"{name}/config.json"]
    missing += [f"{name}/{file}" for file in _listed(folder) if not (folder / file).is_file()]
    counts = [count for file in weights for count in _counts(file)]
    return Checkpoint(
        name,
        folder,
        sum(file.stat().st_size for file in weights),
        sum(number for _, number in counts),
        sum(number for tensor, number in counts if _VISION.search(tensor)),
        _read(config) if config else {},
        missing,
        (),
    )


def _to_fetch(name: str) -> Checkpoint:
    return Checkpoint(name, None, 0, 0, 0, {}, (), (f"{name}: is fetched from its hub when it is first needed",))


def _cached(name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listed(folder: Path) -> set[str]:
    """The files that a sharded checkpoint says it has."""
    return set(map(str, _read(folder / "model.safetensors.index.json").get("weight_map", {}).values()))


def _counts(file: Path) -> list[tuple[str, int]]:
    """Names and sizes of a file's tensors, by its header; none of a damaged one."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        raw = handle.read(length) if length <= _LARGEST_HEADER_BYTES else b""
    try:
        header = json.loads(raw)
        return [(name, math.prod(entry["shape"])) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _width(config: Mapping[str, Any]) -> int | None:
    """d as CLIP, open_clip and SigLIP state it."""
    for found in (config.get("projection_dim"), config.get("model_cfg", {}).get("embed_dim")):
        if isinstance(found, int):
            return found
    if "siglip" in str(config.get("model_type")):
        # SigLIP's width is that of its pictures' half; configs leave out what equals the class's own default.
        width = config.get("vision_config", {}).get("hidden_size", 768)
        return width if isinstance(width, int) else None
    return 512 if config.get("model_type") == "clip" else None


def _picture_tokens(config: Mapping[str, Any]) -> int | None:
    vision = config.get("vision_config") or config.get("model_cfg", {}).get("vision_cfg", {})
    size, patch = vision.get("image_size"), vision.get("patch_size")
    return (size // patch) ** 2 if isinstance(size, int) and isinstance(patch, int) else None


def _open_clip_width(name: str) -> int | None:
    import open_clip

    config = open_clip.get_model_config(name.partition("/")[0])
    return config["embed_dim"] if config else None
