"""The short table that a run ends with."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.drawing.html import figure, percent
from gapbridge.errors import ArtifactError
from gapbridge.report.gallery import read_gallery

_REPORT = Path("artifacts/report")
_MODEL = Path("artifacts/instruct")


def table(workspace: Path) -> str:
    """Scores beside their floors, the gap before and after, where everything lies, what to try next.

    Raises ArtifactError when the evaluation or the alignment has not run yet, or left other figures.
    """
    parts = [_told(workspace, "evaluate", _scores), _told(workspace, "realign", _gap), _places(workspace)]
    return "\n\n".join("\n".join(part) for part in parts)


def _told(workspace: Path, stage: str, tell: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
    path = workspace / "metrics" / f"{stage}.json"
    if not path.exists():
        raise ArtifactError(f"{path}: missing, since {stage} has not run here; run `dvc repro`")
    try:
        return tell(artifacts.read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: not the figures of {stage}; run `gapbridge {stage}` again") from error


def _scores(evaluate: Mapping[str, Any]) -> list[str]:
    benchmarks = evaluate["benchmarks"]
    width = max(map(len, [*benchmarks, "benchmark"]))
    lines = [f"{'benchmark':<{width}}  {'score':>7}  {'blind':>7}  {'majority':>8}  {'items':>5}  new combinations"]
    for name, figures in sorted(benchmarks.items()):
        novel = f"{percent(figures['novel']['score'])} of {figures['novel']['n']}" if "novel" in figures else "–"
        lines.append(
            f"{name:<{width}}  {percent(figures['score']):>7}  {percent(figures['blind']):>7}"
            f"  {percent(figures['majority']):>8}  {figures['n']:>5}  {novel}"
        )
    if "model" in evaluate:
        lines.insert(0, f"These are the scores of a reference, {evaluate['model']['name']}.")
    average, blind = percent(evaluate["average"]), percent(evaluate["average_blind"])
    return [*lines, f"{'average':<{width}}  {average:>7}  {blind:>7}"]


def _gap(realign: Mapping[str, Any]) -> list[str]:
    lines = [f"gap       before {figure(realign['gap_before'])}, after {figure(realign['gap_after'])}"]
    if realign["gap_heldout"] is not None:
        heldout, floor = figure(realign["gap_heldout"]), figure(realign["sampling_floor"])
        lines.append(f"held out  {heldout}, sampling floor {floor}")
    return lines


def _places(workspace: Path) -> list[str]:
    lines = [f"model     {_MODEL}/"]
    try:
        exhibits = read_gallery(workspace / _REPORT)
    except ArtifactError:
        return [*lines, "page      not there yet: `gapbridge report`"]
    lines.insert(0, f"page      {_REPORT}/index.html")
    if exhibits:
        picture, question = _REPORT / exhibits[0].picture, exhibits[0].question
        lines.append(f"try       gapbridge ask {picture} {shlex.quote(question)}")
        lines.append(f"          gapbridge describe {picture}")
    return lines
