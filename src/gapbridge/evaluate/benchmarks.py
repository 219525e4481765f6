"""Which rules score which benchmark. A new kind of benchmark is one file beside this one and one line here."""

from collections.abc import Sequence

from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.answers import yes_or_no
from gapbridge.evaluate.caption_f1 import BoundAttributesF1
from gapbridge.evaluate.protocol import Rules
from gapbridge.evaluate.yes_no import YesNo

CAPTIONS = "caption_f1"


def rules_for(benchmark: str, answers: Sequence[str]) -> Rules:
    """The rules of the benchmark with that id: captions by name, the rest by what its right answers are."""
    if benchmark == CAPTIONS:
        return BoundAttributesF1()
    if all(answer.strip().lower() in ("yes", "no") and yes_or_no(answer) for answer in answers):
        return YesNo()
    return NormalisedMatch(answers)
