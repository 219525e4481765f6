"""The plan in words and columns."""

from collections.abc import Iterator, Mapping
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB")
_KILO = 1000.0


def plan_text(plan: Mapping[str, Any]) -> str:
    """What `make_plan` gave, for people; what is not known is a dash."""
    parts = [
        _reads(plan), _parts(plan), _training(plan), _memory(plan), _needs(plan), _cost(plan), _assumes(plan),
        _lacks(plan),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _reads(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'reads':<10} {'format':<14} {'files':>9} {'size':>9} {'rows':>12} {'used':>12}  from"
    for name, sources in plan["sets"].items():
        for source in sources:
            mark = "" if source["counted"] else "~"
            yield (
                f"{name:<10} {source['format'] or '–':<14} {_count(source['files']):>9} {_size(source['bytes']):>9}"
                f" {_count(source['rows'], mark):>12} {_count(source['used_rows'], mark):>12}"
                f"  {source['path'] or 'drawn by the world'}"
            )


def _parts(plan: Mapping[str, Any]) -> Iterator[str]:
    width = plan["encoder"]["width"]
    if plan["encoder"]["brought"]:
        yield f"encoder    none, vectors are brought along, width {width or '–'}"
    elif not plan["encoder"]["checkpoints"]:
        yield f"encoder    trained by the run, width {width}"
    for part in plan["encoder"]["checkpoints"]:
        yield f"encoder    {_part(part)}, width {width or '–'}"
    yield f"llm        {_part(plan['llm'])}" if plan["llm"] else "llm        trained by the run"


def _part(part: Mapping[str, Any]) -> str:
    known = f"{part['parameters'] / 1e6:,.1f} M parameters, {_size(part['bytes'])}" if part["parameters"] else "–"
    return f"{part['name']}: {known}"


def _training(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'trains':<10} {'rows':>12} {'batch':>7} {'steps':>9} {'samples':>12} {'tokens':>15} {'a sample':>9}"
    for name, stage in plan["training"].items():
        if stage is None:
            yield f"{name:<10} left out (pretrain.enabled)"
            continue
        mean = stage.get("mean_tokens")
        yield (
            f"{name:<10} {_count(stage['rows']):>12} {_count(stage['batch_size']):>7} {_count(stage['steps']):>9}"
            f" {_count(stage['samples']):>12} {_count(stage['tokens'], '' if stage['tokens_exact'] else '~'):>15}"
            f" {'–' if mean is None else f'{mean:.1f}':>9}"
        )


def _memory(plan: Mapping[str, Any]) -> Iterator[str]:
    hardware = plan["hardware"]
    yield f"memory of one GPU ({hardware['count']} × {hardware['name']}, {hardware['memory_gb']} GB)"
    for name, stage in plan["training"].items():
        memory = (stage or {}).get("memory")
        if memory is None:
            yield f"{name:<10} not known: the language model's settings or the encoder's width or rows are not there"
            continue
        parts = ("weights", "gradients", "optimiser", "activations", "logits", "temporaries")
        fits = "fits" if memory["share_of_gpu"] < 1 else "does not fit"
        told = ", ".join(f"{part} {_size(memory[part])}" for part in parts)
        yield f"{name:<10} {_size(memory['peak'])}, {fits} ({told})"


def _needs(plan: Mapping[str, Any]) -> Iterator[str]:
    hardware, hours = plan["hardware"], plan["gpu_hours"]
    speed = f"{hardware['utilisation']:.0%} of {hardware['tflops']:g} TFLOP/s"
    yield f"GPU hours  {_listed(hours, _hours)}, at {speed}"
    yield f"disk       {_listed(plan['disk_bytes'], _size)}"


def _listed(values: Mapping[str, Any], told: Any) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {told(value)}" for name, value in values.items())


def _cost(plan: Mapping[str, Any]) -> Iterator[str]:
    cost = plan["data_cost"]
    if cost is None:
        return
    assumed = cost["assumptions"]
    yield "cost of stage 1's data, C = P_in·T_in + P_out·T_out (arXiv 2602.07026 §H.4)"
    yield (
        f"  by the paper's ratios, a million pairs being 1: {_listed(cost['paper'], _ratio)}"
        f" for {_count(cost['rows'])} rows; linear in rows, the paper's own tokens and prices"
    )
    yield (
        f"  by tokens, pairs being 1: {_listed(cost['by_tokens'], _ratio)}; {cost['text_tokens']:.1f} tokens a text,"
        f" {assumed['picture_tokens']} a picture, {assumed['instruction_tokens']} an instruction, and"
        f" P_out = {assumed['price_out'] / assumed['price_in']:g} P_in, which are assumptions"
    )


def _assumes(plan: Mapping[str, Any]) -> Iterator[str]:
    yield "assumed"
    yield from (f"  {line}" for line in plan["assumptions"])


def _lacks(plan: Mapping[str, Any]) -> Iterator[str]:
    if not plan["missing"] and not plan["problems"]:
        yield "nothing is missing"
    yield from (f"by the way {line}" for line in plan["remarks"])
    yield from (f"missing    {path}" for path in plan["missing"])
    yield from (f"look at    {line}" for line in plan["problems"])


def _count(value: int | None, mark: str = "") -> str:
    return "–" if value is None else f"{mark if value else ''}{value:,}"


def _size(value: int | None) -> str:
    if value is None:
        return "–"
    number, units = float(value), list(_UNITS)
    while number >= _KILO and len(units) > 1:
        number /= _KILO
        units.pop(0)
    return f"{number:.0f} {units[0]}" if units[0] == "B" else f"{number:.1f} {units[0]}"


def _hours(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
