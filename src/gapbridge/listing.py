"""`gapbridge list`: what the code supports, told by the registries that the code itself goes by."""

from pathlib import Path
from typing import Any

from gapbridge.align.methods import ALIASES, RECIPES
from gapbridge.corpus.gather import READERS
from gapbridge.corpus.records import SETS
from gapbridge.embeddings.adapters import ADAPTERS
from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.benchmarks import BENCHMARKS, CAPTIONS
from gapbridge.evaluate.caption_f1 import BoundAttributesF1
from gapbridge.evaluate.yes_no import YesNo
from gapbridge.profiles import names

LLM_FAMILIES = ("lfm2", "llama", "qwen2", "qwen3", "mistral", "phi3", "gemma3_text", "gemma2")
"""`model_type` of the language models that the tests build, save, open and ask (tests/model/conftest.py); any other
`AutoModelForCausalLM` whose logits come from its own head alone is taken too."""
_OWN_BENCHMARKS = {
    CAPTIONS: BoundAttributesF1.id,
    "any name, answers yes and no": YesNo.id,
    "any name, other answers": NormalisedMatch.id,
}


def listing(workspace: Path) -> dict[str, Any]:
    """Readers with the sets that they can fill, encoders, language models, aligners, benchmarks, profiles."""
    return {
        "readers": {name: _sets(name, kinds) for name, (_, kinds) in READERS.items()},
        "encoders": dict(ADAPTERS),
        "llm_families": list(LLM_FAMILIES),
        "aligners": [*RECIPES, *ALIASES],
        "benchmarks": {
            benchmark.name: {
                "title": benchmark.title,
                "family": benchmark.family,
                "protocols": list(benchmark.protocols),
                "layout": benchmark.layout,
                "source": benchmark.source,
            }
            for benchmark in BENCHMARKS.values()
        },
        "own_benchmarks": dict(_OWN_BENCHMARKS),
        "profiles": names(workspace),
    }


def listing_text(found: dict[str, Any]) -> str:
    """The same for people, one line an entry."""
    rows = {
        "readers (sources.SET.format), and the sets that they fill": [
            (name, ", ".join(sets)) for name, sets in found["readers"].items()
        ],
        "encoders (encoder.pretrained)": list(found["encoders"].items()),
        "language models that were tried (llm.pretrained), by model_type": [(", ".join(found["llm_families"]), "")],
        "aligners (realign.method)": [(", ".join(found["aligners"]), "")],
        "benchmarks (sources.benchmark.format), and their protocols": [
            (name, f"{entry['title']}: {', '.join(entry['protocols'])}") for name, entry in found["benchmarks"].items()
        ],
        "benchmarks of one's own (format pope), by the field `benchmark`": list(found["own_benchmarks"].items()),
        "profiles (gapbridge profile NAME)": [(", ".join(found["profiles"]), "")],
    }
    return "\n\n".join(f"{title}\n" + _table(lines) for title, lines in rows.items() if lines)


def _sets(reader: str, kinds: frozenset[str]) -> list[str]:
    """The sets that a reader can fill; an encoder is not trained on vectors that are brought along."""
    return [name for name, kind in SETS.items() if kind in kinds and (reader, name) != ("embeddings", "encoder")]


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, told in rows if told) if any(told for _, told in rows) else 0
    return "\n".join(f"  {name:<{width}}  {told}".rstrip() for name, told in rows)
