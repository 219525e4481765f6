"""The paper's table: eleven benchmarks in three families, our rows beside those of arXiv 2602.07026.

Of the paper's rows only the averages over all eleven are known here; every figure is in per cent.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapbridge.drawing.html import percent
from gapbridge.evaluate.benchmarks import BENCHMARKS

NOTE = "Rows marked * had 417k rows in stage 2."
PAPER = (
    ("blind LLM", 7.85),
    ("no alignment", 47.50),
    ("C3", 48.06),
    ("blockwise (BC)", 48.74),
    ("anchor", 46.68),
    ("anchor and trace", 48.67),
    ("ReAlign", 50.16),
    ("ReAlign, no stage 1", 43.58),
    ("ReAlign, 70B", 52.33),
    ("paired, 1M *", 48.91),
    ("Unicorn *", 43.94),
    ("ReVision, 1M *", 48.05),
    ("ReVision, 2M *", 49.75),
)
"""What the paper trained and its average of the eleven benchmarks."""


@dataclass(frozen=True)
class Column:
    """One benchmark, or an average; `family` is None for the average of all."""

    title: str
    family: str | None
    is_average: bool = False

    @property
    def breakable(self) -> str:
        """The title with places where a line may end: before a capital inside a word."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "\u200b", self.title)


@dataclass(frozen=True)
class TableRow:
    """One model: a share (0 to 1) or None for each column."""

    name: str
    is_ours: bool
    shares: tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """The columns, family by family, and the rows, ours first."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    note: str = NOTE

    @property
    def families(self) -> list[tuple[str, int]]:
        """The families in order, and how many columns each has."""
        found = [column.family for column in self.columns if column.family]
        return [(family, found.count(family)) for family in dict.fromkeys(found)]


def paper_table(evaluate: Mapping[str, Any], name: str) -> PaperTable | None:
    """The table for the figures of metrics/evaluate.json, whose model is called `name`; None where no column is known.

    Averages are there where every benchmark of theirs is.
    """
    if not BENCHMARKS.keys() & evaluate["benchmarks"].keys():
        return None
    ours = [
        TableRow(f"{name}{said}", True, _shares(evaluate, figure))
        for said, figure in (("", "score"), (", blind", "blind"))
    ]
    unknown = (None,) * (len(_columns()) - 1)
    paper = [TableRow(title, False, (average / 100, *unknown)) for title, average in PAPER]
    return PaperTable(_columns(), (*ours, *paper))


_COMMON = frozenset({"score", "blind", "majority", "n", "unparsed", "yes_rate"})


def official_figures(evaluate: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the official scorers report besides accuracy, by the benchmark's title: shares in per cent, sums as such."""
    found = {}
    for name, benchmark in BENCHMARKS.items():
        extras = {
            key: value
            for key, value in evaluate["benchmarks"].get(name, {}).items()
            if key not in _COMMON and isinstance(value, int | float)
        }
        if extras:
            found[benchmark.title] = [f"{key.replace('_', ' ')} {_shown(value)}" for key, value in extras.items()]
    return found


def _shown(value: float) -> str:
    return percent(value) if 0 <= value <= 1 else f"{value:.1f}"


def _columns() -> tuple[Column, ...]:
    columns = [Column("average of all", None, is_average=True)]
    for family in dict.fromkeys(benchmark.family for benchmark in BENCHMARKS.values()):
        columns += [Column(benchmark.title, family) for benchmark in _members(family)]
        columns.append(Column("average", family, is_average=True))
    return tuple(columns)


def _members(family: str) -> Sequence[Any]:
    return [benchmark for benchmark in BENCHMARKS.values() if benchmark.family == family]


def _shares(evaluate: Mapping[str, Any], figure: str) -> tuple[float | None, ...]:
    shares: list[float | None] = [evaluate.get("published", {}).get(figure)]
    for family in dict.fromkeys(benchmark.family for benchmark in BENCHMARKS.values()):
        shares += [evaluate["benchmarks"].get(benchmark.name, {}).get(figure) for benchmark in _members(family)]
        shares.append(evaluate.get("families", {}).get(family, {}).get(figure))
    return tuple(shares)
