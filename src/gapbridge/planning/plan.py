"""The whole plan of a run, as one nested dictionary: `gapbridge plan --json` prints it as it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gapbridge.model.assemble import AdapterShape
from gapbridge.params import Params
from gapbridge.planning.hardware import Hardware
from gapbridge.planning.lengths import HOW, caption_lengths, dialogue_lengths, open_prompter
from gapbridge.planning.parts import Checkpoint, EncoderPlan, plan_encoder, plan_llm
from gapbridge.planning.prices import data_costs
from gapbridge.planning.sources import SAMPLE_ROWS, SourcePlan, plan_sources, used_rows
from gapbridge.planning.stages import Model, plan_stage

_VECTOR_BYTES = 2
_KEY_BYTES = 32
_STATE_BYTES = 12
_WEIGHT_BYTES = 4
_PICTURED = ("images", "instruct", "benchmark", "probe")
_WORDED = ("texts", "probe")
_LETTERS_A_TOKEN = 4
_GENERATION = 0.1
ASSUMPTIONS = (
    f"rows, lengths and faults by the first {SAMPLE_ROWS} rows of each source; counts marked ~ by a part and the size",
    "model operations: two a weight and token forwards, two backwards, two more where the weight learns",
    "encoding: two a weight of the half, patch and picture, or token and text; every content once, none in the cache",
    f"answers: at {_GENERATION:.0%} of training's speed, each question with the picture and without",
    "memory: what is alive when a step needs most; half a GB of CUDA's own and gaps between blocks come on top",
    "disk: DVC keeps its own copy of outs where the file system has no links between files",
)


def make_plan(workspace: Path, params: Params, hardware: Hardware) -> dict[str, Any]:
    """Inputs, parts, training, disk, GPU hours, the cost of the data, and what is missing. Reads alone."""
    sets = plan_sources(workspace, params)
    encoder, llm = plan_encoder(workspace, params.encoder), plan_llm(workspace, params.llm)
    if params.encoder.is_brought:
        widths = (plan.width for plans in sets.values() for plan in plans)
        encoder = replace(encoder, width=next((width for width in widths if width), None))
    training = _training(params, sets, encoder, llm, hardware)
    parts = [*encoder.checkpoints, *([llm] if llm else [])]
    return {
        "sets": {name: [_source(plan) for plan in plans] for name, plans in sets.items()},
        "encoder": {**_encoder(encoder), "brought": params.encoder.is_brought},
        "llm": None if llm is None else _checkpoint(llm),
        "training": training["stages"],
        "disk_bytes": _disk(sets, encoder, llm, training["stages"]),
        "hardware": {**asdict(hardware), **asdict(hardware.gpu)},
        "gpu_hours": _hours(params, sets, encoder, llm, training, hardware),
        "data_cost": _data_cost(sets, training),
        "assumptions": [*ASSUMPTIONS, HOW[training["exact"]]],
        "remarks": [*_of(sets, "remarks"), *(remark for part in parts for remark in part.remarks)],
        "missing": [*_of(sets, "missing"), *(path for part in parts for path in part.missing)],
        "problems": [*_of(sets, "problems"), *_nothing_to_train(params), *training["problems"]],
    }


def _nothing_to_train(params: Params) -> Iterator[str]:
    """A part that is neither named nor has rows to learn from."""
    for name, pretrained in (("encoder", params.encoder.pretrained), ("llm", params.llm.pretrained)):
        if pretrained is None and not params.sources.of(name):
            yield f"sources.{name}: null, as is {name}.pretrained; name rows to learn from, or a model"


def _of(sets: Mapping[str, Sequence[SourcePlan]], field: str) -> list[str]:
    lines = [line for plans in sets.values() for plan in plans for line in getattr(plan, field)]
    return list(dict.fromkeys(lines))


def _source(plan: SourcePlan) -> dict[str, Any]:
    return {
        "path": plan.path,
        "format": plan.file_format,
        "files": plan.files,
        "bytes": plan.size_bytes,
        "rows": None if plan.rows is None else plan.rows.rows,
        "counted": plan.rows is not None and plan.rows.exact,
        "used_rows": plan.used_rows,
    }


def _checkpoint(part: Checkpoint) -> dict[str, Any]:
    here = part.folder is not None
    return {"name": part.name, "here": here, "bytes": part.size_bytes, "parameters": part.parameters}


def _encoder(plan: EncoderPlan) -> dict[str, Any]:
    return {"checkpoints": [_checkpoint(part) for part in plan.checkpoints], "width": plan.width}


def _training(
    params: Params,
    sets: Mapping[str, Sequence[SourcePlan]],
    encoder: EncoderPlan,
    llm: Checkpoint | None,
    hardware: Hardware,
) -> dict[str, Any]:
    folder = llm.folder if llm else None
    prompter, problem = open_prompter(folder)
    adapter = AdapterShape(**params.pretrain.adapter.model_dump())
    paired = params.pretrain.source == "paired_image"
    name, column = ("images", "caption") if paired else ("texts", "text")
    captions = [record for plan in sets[name] for record in plan.sample]
    dialogues = [record for plan in sets["instruct"] for record in plan.sample]
    model = Model(folder, encoder.width, encoder.vision_parameters)
    stages: dict[str, Any] = {"pretrain": None}
    lengths = caption_lengths(captions, column, params.pretrain.instruction, adapter.visual_tokens, prompter)
    if params.pretrain.enabled:
        stages["pretrain"] = plan_stage(params.pretrain, adapter, used_rows(sets[name]), lengths, model, hardware)
    asked = dialogue_lengths(dialogues, adapter.visual_tokens, prompter)
    stages["instruct"] = plan_stage(params.instruct, adapter, used_rows(sets["instruct"]), asked, model, hardware)
    written = None if lengths is None else float(lengths.targets.mean())
    problems = [problem] if problem else []
    return {"stages": stages, "exact": prompter is not None, "text_tokens": written, "problems": problems}


def _rows(sets: Mapping[str, Sequence[SourcePlan]], names: Sequence[str]) -> int | None:
    counts = [used_rows(sets[name]) for name in names]
    return None if None in counts else sum(count for count in counts if count is not None)


def _disk(
    sets: Mapping[str, Sequence[SourcePlan]],
    encoder: EncoderPlan,
    llm: Checkpoint | None,
    stages: Mapping[str, Any],
) -> dict[str, int | None]:
    rows = _rows(sets, [*_PICTURED, *_WORDED])
    vectors = None if rows is None or encoder.width is None else rows * encoder.width * _VECTOR_BYTES
    memory = (stages["instruct"] or {}).get("memory")
    return {
        "shards": vectors,
        "vector_cache": None if vectors is None or rows is None else vectors + rows * _KEY_BYTES,
        "checkpoint": None if memory is None else memory["trained_parameters"] * _STATE_BYTES,
        "model": None if memory is None else memory["parameters"] * _WEIGHT_BYTES,
    }


def _hours(
    params: Params,
    sets: Mapping[str, Sequence[SourcePlan]],
    encoder: EncoderPlan,
    llm: Checkpoint | None,
    training: Mapping[str, Any],
    hardware: Hardware,
) -> dict[str, float | None]:
    stages = training["stages"]
    found: dict[str, float | None] = {"embed": _encoding(sets, encoder, hardware)}
    found |= {name: told["gpu_hours"] for name, told in stages.items() if told is not None}
    questions, asked = used_rows(sets["benchmark"]), stages["instruct"].get("mean_tokens")
    found["evaluate"] = None
    if questions is not None and asked is not None and llm is not None and llm.parameters:
        tokens = 2 * questions * (asked + params.evaluate.max_new_tokens)
        found["evaluate"] = hardware.hours(2.0 * llm.parameters * tokens, _GENERATION)
    return found


def _encoding(sets: Mapping[str, Sequence[SourcePlan]], encoder: EncoderPlan, hardware: Hardware) -> float | None:
    pictures, texts = _rows(sets, _PICTURED), _rows(sets, _WORDED)
    sample = [record["text"] for name in _WORDED for plan in sets[name] for record in plan.sample]
    known = (encoder.vision_parameters, encoder.text_parameters, encoder.picture_tokens)
    if pictures is None or texts is None or not sample or None in known:
        return None
    vision, words, patches = (value or 0 for value in known)
    tokens = sum(map(len, sample)) / len(sample) / _LETTERS_A_TOKEN
    return hardware.hours(2.0 * (vision * patches * pictures + words * tokens * texts))


def _data_cost(sets: Mapping[str, Sequence[SourcePlan]], training: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = used_rows(sets["texts"])
    if not rows or training["text_tokens"] is None:
        return None
    return data_costs(rows, training["text_tokens"])
