"""Figures, tables and pictures for the page's tests. Nothing here was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import polars
from PIL import Image

from gapbridge import artifacts

DIGEST = "ab" * 32


def metrics() -> dict[str, Any]:
    """Content of every metrics file that the report reads, by stage."""
    pope = {
        "score": 0.875, "blind": 0.5, "majority": 0.5, "n": 40, "interval": [0.8, 0.94], "unparsed": 1,
        "protocol": "yes-no/1", "measure": "accuracy", "yes_rate": 0.45,
        "subsets": {"random": {"score": 0.9, "blind": 0.5, "n": 20, "yes_rate": 0.5}},
        "novel": {"score": 0.625, "blind": 0.4, "n": 8, "interval": [0.3, 0.9]},
    }  # fmt: skip
    color = {
        "score": 0.75, "blind": 0.25, "majority": 0.2, "n": 1234, "interval": [0.7, 0.8], "unparsed": 0,
        "protocol": "normalised-match/1", "measure": "accuracy",
    }  # fmt: skip
    table = {"rows": 20000, "groups": 900, "quarantined": 3, "reasons": {"empty <text>": 3}, "digest": DIGEST}
    realign = {
        "n_texts": 18000, "n_images": 7200, "width": 256, "text_trace": 0.61, "image_trace": 0.55, "scale": 0.95,
        "gap_before": 0.391, "gap_after": 0.000661, "gap_heldout": 0.0412, "sampling_floor": 0.0361,
    }  # fmt: skip
    return {
        "evaluate": {"benchmarks": {"pope": pope, "color": color}, "average": 0.8125, "average_blind": 0.375},
        "realign": realign,
        "ingest": {"sets": {"texts": table}, "disjoint": {"pairs": {"texts/images": {"shared_groups": 0}}}},
        **{stage: {"fingerprint": DIGEST} for stage in ("encoder", "llm", "geometry", "pretrain", "instruct")},
    }


def write_metrics(folder: Path, content: dict[str, Any]) -> None:
    """One file a stage, as the stages write them."""
    for stage, figures in content.items():
        artifacts.write_json(folder / f"{stage}.json", figures)


def predictions(count: int = 40) -> list[dict[str, Any]]:
    """Answers of which every fourth is wrong; every item is its own."""
    return [
        {
            "item_id": f"color-{n:02d}", "benchmark": "color", "prompt": f"what <b> is {n:02d}", "raw": f"said {n:02d}",
            "answer": f"answer {n:02d}", "novel": n % 10 == 0, "correct": n % 4 != 0,
        }
        for n in range(count)
    ]  # fmt: skip


def picture(item_id: str) -> Image.Image:
    """A plain picture whose colour tells the item."""
    return Image.new("RGB", (600, 300), (int(item_id[-2:]) * 6, 80, 120))


def plane() -> polars.DataFrame:
    """Three clouds of points."""
    random = np.random.default_rng(0)
    centres = {"image": 0.0, "text": 0.4, "aligned": 0.0}
    return polars.concat(
        polars.DataFrame({"across": random.normal(x, 0.02, 900), "along": random.normal(0, 0.1, 900), "side": side})
        for side, x in centres.items()
    )


def spectra() -> polars.DataFrame:
    """Power laws, the last eigenvalues zero."""
    ranks = np.arange(1, 65)
    law = np.where(ranks < 60, 1.0 / ranks, 0.0)
    return polars.DataFrame({"rank": ranks, "image": law, "text": law / 2, "aligned": law})


def losses(steps: int = 1000) -> polars.DataFrame:
    """A falling loss, held out every 100 steps."""
    step = np.arange(1, steps + 1)
    loss = 4.0 / np.sqrt(step)
    heldout = [float(value) if n % 100 == 0 else None for n, value in zip(step, loss, strict=True)]
    return polars.DataFrame({"step": step, "loss": loss, "heldout": heldout})
