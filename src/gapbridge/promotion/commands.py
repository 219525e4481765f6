"""The command line of the registry: `gapbridge promote`, `rollback` and `lineage`."""

import json
from pathlib import Path

import click

from gapbridge import artifacts
from gapbridge.errors import InputError
from gapbridge.params import load_params
from gapbridge.promotion import decide
from gapbridge.promotion.decide import Decision, Rules
from gapbridge.promotion.gates import Thresholds
from gapbridge.promotion.lineage import lineage as trace
from gapbridge.registry import open_registry

REFUSED = 3
"""The exit status of a promotion that a gate refused."""
_json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
_dry_option = click.option("--dry-run", is_flag=True, help="Say what would be decided; change nothing.")


@click.command
@click.argument("model", required=False)
@_dry_option
@_json_option
def promote(model: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a version of MODEL the champion, if it passes the gates of params.yaml (section promote).

    MODEL is NAME (its newest version), NAME/NUMBER or NAME@ALIAS; by default the registered model there is. Exit
    status 3 when a gate refuses it.
    """
    decision = decide.promote(Path.cwd(), model or only_model(), _rules(), dry_run)
    _tell(decision, as_json)
    if not decision.promoted:
        raise SystemExit(REFUSED)


@click.command
@click.argument("name", required=False)
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why; kept with the record.")
@_dry_option
@_json_option
def rollback(name: str | None, reason: str, dry_run: bool, as_json: bool) -> None:
    """Make the champion of NAME from before the present one champion again."""
    _tell(decide.rollback(Path.cwd(), name or only_model(), reason, dry_run), as_json)


@click.command
@click.argument("model", required=False)
@_json_option
def lineage(model: str | None, as_json: bool) -> None:
    """Say what MODEL (NAME@ALIAS, NAME/NUMBER, NAME) was made from, and whether it can be made again here."""
    found = trace(Path.cwd(), model or f"{only_model()}@champion")
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else found.text())


def _rules() -> Rules:
    params = load_params(Path("params.yaml"))
    limits = params.promote
    band = (limits.yes_rate[0], limits.yes_rate[1])
    thresholds = Thresholds(limits.require, limits.minimum, limits.max_drop, limits.max_gap_over_floor, band)
    return Rules(thresholds, limits.require_clean, params.seed, probe)


def only_model() -> str:
    """The name in params.yaml, or the one registered model. Raises InputError when that leaves a choice."""
    name = load_params(Path("params.yaml")).report.register_as if Path("params.yaml").exists() else None
    if name:
        return name
    with open_registry(Path.cwd()) as registry:
        names = registry.names()
    if len(names) != 1:
        raise InputError(f"name a model: there are {', '.join(names) or 'none; set report.register_as'}")
    return names[0]


def _tell(decision: Decision, as_json: bool) -> None:
    click.echo(json.dumps(decision.as_json(), indent=2) if as_json else decision.markdown().rstrip())


def probe(package: Path) -> str | None:
    """What the packaged model answers otherwise than when it was registered; None when nothing.

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
