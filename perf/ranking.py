"""The paper's ranking of aligners on other vectors: `python -m perf.ranking --set NAME TEXTS IMAGES [--set …]`.

Each set is its pairs: row i of the texts belongs to row i of the images. Every aligner is fitted on one half and
measured on the other, for several halvings; the table shows means and standard deviations beside the paper's figures,
and says of each claim whether it is reproduced, not reproduced, or too noisy to say. Writes docs/results/ranking.json.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gapbridge.embeddings.vectors import open_vectors
from gapbridge.geometry.diagnosis import Sample, diagnose

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("none", "c3", "blockwise", "realign")
Runs = Mapping[str, list[float]]
"""Values of one figure by aligner, one for each halving."""


@dataclass(frozen=True)
class Claim:
    """What the paper says of one figure: pairs of aligners, the first of which has the larger value."""

    figure: str
    larger: tuple[tuple[str, str], ...]
    paper: str


CLAIMS = (
    Claim("gap", (("none", "c3"), ("c3", "realign")), "none .392, C3 .0023, ReAlign 2.6e-4 (in sample)"),
    Claim("power_law_exponent", (("none", "c3"), ("realign", "c3")), "none 1.33, C3 1.06, ReAlign 1.33"),
    Claim("js_divergence", (("c3", "realign"),), "C3 .19, ReAlign .0067"),
    Claim("mixing_rate", (("realign", "c3"), ("c3", "none")), "none .3 %, C3 1.3 %, ReAlign 4.4 %"),
    Claim("neighbour_overlap", (("none", "realign"), ("realign", "blockwise")), "none 1, BC .101, ReAlign .873"),
    Claim("kept_cosine", (("realign", "c3"),), "Φ: C3 .899, ReAlign .923"),
    Claim("kept_cosine_structure", (("c3", "realign"),), "Ψ: C3 .925, ReAlign .836"),
)


def verdict(claim: Claim, values: Runs) -> str:
    """Reproduced where every pair differs the way the paper says in all halvings, not where one does the other way."""
    agree = [np.array(values[larger]) > np.array(values[smaller]) for larger, smaller in claim.larger]
    if all(pair.all() for pair in agree):
        return "reproduced"
    return "not reproduced" if any(not pair.any() for pair in agree) else "too noisy to say"


def measure(texts: Path, images: Path, halvings: int, rows: int) -> dict[str, Any]:
    """Values by figure and aligner, and the verdict of every claim."""
    text, image = open_vectors(texts, "texts"), open_vectors(images, "images")
    places = np.sort(np.random.default_rng(0).permutation(text.rows)[:rows])
    sample = Sample.of(text.read(places), image.read(places), paired=True)
    runs = [diagnose(sample, seed=seed, methods=METHODS).methods for seed in range(halvings)]
    figures = {
        claim.figure: {method: [run[method][claim.figure] for run in runs] for method in METHODS} for claim in CLAIMS
    }
    return {
        "rows": len(places),
        "width": text.width,
        "halvings": halvings,
        "figures": figures,
        "verdicts": {claim.figure: verdict(claim, figures[claim.figure]) for claim in CLAIMS},
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: one row a claim and set."""
    lines = ["| figure | set | " + " | ".join(METHODS) + " | paper | verdict |", "|" + " --- |" * (len(METHODS) + 4)]
    for claim in CLAIMS:
        for name, found in results.items():
            cells = [_spread(found["figures"][claim.figure][method]) for method in METHODS]
            row = [claim.figure, name, *cells, claim.paper, found["verdicts"][claim.figure]]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.1g}"


def main() -> None:
    """Measure every set, print the table, write docs/results/ranking.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", nargs=3, action="append", required=True, metavar=("NAME", "TEXTS", "IMAGES"))
    parser.add_argument("--halvings", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000, help="pairs at most")
    arguments = parser.parse_args()
    results = {
        name: measure(Path(texts), Path(images), arguments.halvings, arguments.rows)
        for name, texts, images in arguments.set
    }
    (ROOT / "docs/results/ranking.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
