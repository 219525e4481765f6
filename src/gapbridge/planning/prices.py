"""What the texts of stage 1 cost beside pairs and synthetic data (arXiv 2602.07026 §H.4).

C = P_in · T_in + P_out · T_out, tokens T read and written by the models that make the data, at prices P.
"""

from dataclasses import asdict, dataclass
from typing import Any

PAPER = {"paired": 1.00, "unpaired": 0.37, "synthetic": 3.98}
"""Cost of a million rows over that of a million pairs, as the paper has it (ReVision-1M; Unicorn)."""
ROWS = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Assumptions of ours; the paper's own tokens and prices are not known here."""

    price_in: float = 1.0
    price_out: float = 4.0
    """Written tokens are commonly priced at about four times the read ones."""
    picture_tokens: int = 576
    """What a captioning model reads of a picture of 336 pixels in patches of 14."""
    instruction_tokens: int = 50


def data_costs(rows: int, text_tokens: float, prices: Prices | None = None) -> dict[str, Any]:
    """Costs of `rows` texts of `text_tokens` each, in million pairs' worth and by tokens, with the assumptions."""
    prices = prices or Prices()
    written = prices.price_out * text_tokens
    unpaired = prices.price_in * prices.instruction_tokens + written
    paired = prices.price_in * (prices.instruction_tokens + prices.picture_tokens) + written
    return {
        "rows": rows,
        "text_tokens": text_tokens,
        "paper": {kind: ratio * rows / ROWS for kind, ratio in PAPER.items()},
        "by_tokens": {"paired": 1.0, "unpaired": unpaired / paired},
        "assumptions": asdict(prices),
    }
