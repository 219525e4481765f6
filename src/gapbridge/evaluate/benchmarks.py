"""Every benchmark, and which rules score its items. A published one is a module beside this one and one line here."""

from collections.abc import Sequence

from gapbridge.evaluate import (
    crpe,
    hallusionbench,
    logicvista,
    mme,
    mmmu,
    mmmu_pro,
    mmstar,
    pope_official,
    realworldqa,
    scienceqa,
    visulogic,
)
from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.answers import yes_or_no
from gapbridge.evaluate.caption_f1 import BoundAttributesF1
from gapbridge.evaluate.protocol import Benchmark, Item, Rules
from gapbridge.evaluate.yes_no import YesNo

CAPTIONS = "caption_f1"

_PUBLISHED = (
    mme.BENCHMARK,
    mmstar.BENCHMARK,
    scienceqa.BENCHMARK,
    realworldqa.BENCHMARK,
    mmmu.BENCHMARK,
    mmmu_pro.BENCHMARK,
    visulogic.BENCHMARK,
    logicvista.BENCHMARK,
    crpe.BENCHMARK,
    pope_official.BENCHMARK,
    hallusionbench.BENCHMARK,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _PUBLISHED}
"""The published benchmarks by name; `params.BENCHMARK_FORMATS` has the same names (a test compares them)."""


def rules_for(benchmark: str, items: Sequence[Item]) -> Rules:
    """The rules of the benchmark with that id, all of whose items are given.

    A published one has its own, captions go by name, the rest by what the right answers are.
    """
    if benchmark in BENCHMARKS:
        return BENCHMARKS[benchmark].rules(items)
    if benchmark == CAPTIONS:
        return BoundAttributesF1()
    if all(item.answer.strip().lower() in ("yes", "no") and yes_or_no(item.answer) for item in items):
        return YesNo()
    return NormalisedMatch([item.answer for item in items])
