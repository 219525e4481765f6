"""What the two training stages will compute, and what one GPU needs for it.

Shapes: `n` samples of one GPU's share of a batch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.errors import InputError, one_line
from gapbridge.model.assemble import AdapterShape
from gapbridge.params import Checkpointing, InstructParams, LoraParams, Optimiser, PretrainParams
from gapbridge.planning.hardware import Hardware
from gapbridge.planning.lengths import SENSELESS, Lengths
from gapbridge.train.batches import rows_of
from gapbridge.train.footprint import Footprint, Tune, footprint
from gapbridge.train.rehearsal import StepShape
from gapbridge.train.tuning import Lora

_HELDOUT_SHARE = 10
_ATTENTION = "attention"


@dataclass(frozen=True)
class Model:
    """What the stages put together, as far as it is known without weights."""

    llm_folder: Path | None
    width: int | None
    vision_parameters: int | None


def plan_stage(
    settings: PretrainParams | InstructParams,
    adapter: AdapterShape,
    rows: int | None,
    lengths: Lengths | None,
    model: Model,
    hardware: Hardware,
) -> dict[str, Any]:
    """Steps, samples and tokens of one stage; memory and hours where the model's settings are there.

    Raises InputError when those are of no model that is known.
    """
    course = _course(settings.training, settings.checkpoint, rows)
    told: dict[str, Any] = {**course, "tokens": None, "tokens_exact": False, "memory": None, "gpu_hours": None}
    if lengths is None:
        return told
    told |= {
        "mean_tokens": float(lengths.tokens.mean()),
        "longest_tokens": int(lengths.tokens.max()),
        "tokens_exact": lengths.exact,
    }
    if course["samples"] is not None:
        told["tokens"] = round(course["samples"] * float(lengths.tokens.mean()))
    found = _footprint(settings, adapter, lengths, model, hardware)
    if found is None:
        return told
    told["memory"] = {
        **{name: value for name, value in asdict(found).items() if name not in ("tokens", "flops")},
        "peak": found.peak,
        "share_of_gpu": found.peak / (hardware.gpu.memory_gb * 1e9),
    }
    if course["steps"] is not None:
        told["gpu_hours"] = hardware.hours(found.flops * hardware.count * course["steps"])
    return told


def _course(training: Optimiser, checkpoint: Checkpointing, rows: int | None) -> dict[str, Any]:
    heldout = None if rows is None else min(checkpoint.heldout_rows, rows // _HELDOUT_SHARE)
    kept = None if rows is None or heldout is None else rows - heldout
    steps = training.steps or (None if kept is None else -(-kept // training.batch_size))
    samples = kept if training.steps is None else training.steps * training.batch_size
    return {"rows": rows, "batch_size": training.batch_size, "steps": steps, "samples": samples}


def _footprint(
    settings: PretrainParams | InstructParams,
    adapter: AdapterShape,
    lengths: Lengths,
    model: Model,
    hardware: Hardware,
) -> Footprint | None:
    config = _config(model.llm_folder)
    if config is None or model.width is None:
        return None
    tune: Tune = settings.tune if isinstance(settings, InstructParams) else "frozen"
    lora = _lora(settings.lora) if isinstance(settings, InstructParams) and tune == "lora" else None
    tower = model.vision_parameters or 0 if isinstance(settings, InstructParams) else 0
    share = -(-settings.training.batch_size // hardware.count)
    try:
        return footprint(
            config,
            adapter,
            model.width,
            _step(lengths, share, _packs(config)),
            tune,
            settings.precision != "fp32",
            settings.gradient_checkpointing,
            lora,
            tower,
            hardware.count,
        )
    except SENSELESS as error:  # settings that parse may still be of no language model, or of sizes that do not fit
        folder = model.llm_folder.name if model.llm_folder else "llm"
        raise InputError(
            f"{folder}/config.json: no language model can be made of it ({one_line(error)}); name another folder"
        ) from error


def _config(folder: Path | None) -> Any:
    """The language model's settings; None where they are not there.

    Raises InputError when they describe no model that is known.
    """
    if folder is None or not (folder / "config.json").is_file():
        return None
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (*SENSELESS, OSError, StrictDataclassError) as error:
        raise InputError(
            f"{folder.name}/config.json: describes no model ({one_line(error)}); fetch it again"
        ) from error


def _lora(params: LoraParams) -> Lora:
    targets: str | Sequence[str] = params.targets
    return Lora(params.rank, params.alpha, params.dropout, targets)


def _packs(config: Any) -> bool:
    """Attention keeps samples of one row apart; what looks across places otherwise does not."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or [_ATTENTION]
    return all(kind.endswith(_ATTENTION) for kind in kinds)


def _step(lengths: Lengths, samples: int, packed: bool) -> StepShape:
    """One GPU's share of a batch: lengths evenly from short to long, or all as long as the longest where rows are not
    shared, since batches then hold samples of like length.
    """
    order = np.argsort(lengths.tokens, kind="stable")
    places = order[np.linspace(len(order) - 1, 0, samples).round().astype(int)] if packed else order[[-1] * samples]
    tokens = lengths.tokens[places]
    rows = rows_of(tokens, packed)
    width = max(int(tokens[row].sum()) for row in rows)
    return StepShape(len(rows), width, samples, int(lengths.targets[places].sum()), packed)
