"""Whether a packaged model still answers what it was asked when it was registered."""

from pathlib import Path

from gapbridge import artifacts


def differing_answers(package: Path) -> str | None:
    """What the model in a folder answers otherwise than when it was registered; None when nothing.

    Raises ArtifactError when the model or its probe.json is damaged.
    """
    if artifacts.read_json(package / "config.json").get("vision_config", {}).get("architecture") is None:
        return None  # it reads vectors alone: there is no picture to ask about
    from gapbridge.evaluate.predict import Predictor  # brings torch
    from gapbridge.evaluate.probe import read_probe

    stored = read_probe(package)
    if stored is None:
        return "the package holds no probe.json; register the model again"
    differing = stored.differing(Predictor.load(package))
    if not differing:
        return None
    question, expected, found = differing[0]
    return f"{len(differing)} of {len(stored.questions)} answers differ: {question!r} {found!r}, was {expected!r}"
