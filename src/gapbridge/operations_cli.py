"""The command line of operating: which model is in use, how it does, what comes home, may go, or is missing."""

import json
import os
import sys
from pathlib import Path

import click

from gapbridge import artifacts
from gapbridge import doctor as doctors
from gapbridge.adopt import adopt as take_over
from gapbridge.benchmark import benchmark as score
from gapbridge.cleanup import leftovers
from gapbridge.params import load_params
from gapbridge.promotion import decide
from gapbridge.promotion.decide import Decision, Rules
from gapbridge.promotion.gates import Thresholds
from gapbridge.promotion.lineage import lineage as trace
from gapbridge.promotion.package_probe import differing_answers
from gapbridge.registry import CHAMPION, Registry

REFUSED = 3
"""The exit status of a promotion that a gate refused."""
_json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
_dry_option = click.option("--dry-run", is_flag=True, help="Say what would be decided; change nothing.")


@click.command()
@click.argument("model", required=False)
@_dry_option
@_json_option
def promote(model: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a version of MODEL the champion, if it passes the gates of params.yaml (section promote).

    MODEL is NAME (its newest version), NAME/NUMBER or NAME@ALIAS; by default the registered model there is. Exit
    status 3 when a gate refuses it.
    """
    decision = decide.promote(Path.cwd(), model or _only_name(), _rules(), dry_run)
    _tell(decision, as_json)
    if not decision.promoted:
        sys.exit(REFUSED)


@click.command()
@click.argument("name", required=False)
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why; kept with the record.")
@_dry_option
@_json_option
def rollback(name: str | None, reason: str, dry_run: bool, as_json: bool) -> None:
    """Make the champion of NAME from before the present one champion again."""
    _tell(decide.rollback(Path.cwd(), name or _only_name(), reason, dry_run), as_json)


@click.command()
@click.argument("model", required=False)
@_json_option
def lineage(model: str | None, as_json: bool) -> None:
    """Say what MODEL (NAME@ALIAS, NAME/NUMBER, NAME) was made from, and whether it can be made again here."""
    found = trace(Path.cwd(), model or _champion())
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else found.text())


@click.command()
@click.argument("model", required=False)
@_json_option
def benchmark(model: str | None, as_json: bool) -> None:
    """Score a registered MODEL (NAME@ALIAS, NAME/NUMBER; default: the champion) on the benchmarks that lie here."""
    found = score(Path.cwd(), model or _champion(), load_params(Path("params.yaml")))
    click.echo(json.dumps(found.as_json()) if as_json else found.text())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def adopt(folder: Path) -> None:
    """Take over the stages that ran in FOLDER, a copy of a workspace on a machine without DVC and MLflow."""
    click.echo(f"taken over: {', '.join(take_over(Path.cwd(), folder))}; `dvc status` says what is left to do")


@click.command()
@click.option("--older-than", "days", type=click.FloatRange(min=0), default=14, show_default=True, help="Days.")
@click.option("--workspace", "others", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="A further folder with a dvc.lock whose outs stay; may be given several times.")  # fmt: skip
@click.option("--dvc-cache", is_flag=True, help="Also objects of the DVC cache that no lock named here needs.")
@click.option("--apply", is_flag=True, help="Remove them; without it they are only listed.")
@_json_option
def cleanup(days: float, others: tuple[Path, ...], dvc_cache: bool, apply: bool, as_json: bool) -> None:
    """List old scratch, runs and cache objects that nothing names any more, or remove them."""
    found = leftovers(Path.cwd(), days, others, dvc_cache)
    for one in found if apply else ():
        one.remove()
    if as_json:
        listed = [{"kind": one.kind, "name": one.name, "bytes": one.size_bytes, "days": round(one.age_days, 1)}
                  for one in found]  # fmt: skip
        click.echo(json.dumps({"removed": apply, "leftovers": listed}))
        return
    for one in found:
        click.echo(f"{one.size_bytes / 1e6:10.1f} MB  {one.age_days:6.0f} days  {one.kind:<10}  {one.name}")
    total = sum(one.size_bytes for one in found) / 1e6
    done = "removed" if apply else "would be removed by --apply"
    click.echo(f"{len(found)} things, {total:.1f} MB: {done}" if found else "nothing is old enough to go")


@click.command()
@_json_option
def doctor(as_json: bool) -> None:
    """Say what is missing, too old or not reachable, and what to do; exit status 1 when a run would fail."""
    checks = doctors.examine(Path.cwd(), os.environ)
    told = artifacts.json_bytes(doctors.as_json(checks)).decode() if as_json else doctors.as_text(checks)
    click.echo(told.rstrip("\n"))
    sys.exit(0 if doctors.all_well(checks) else 1)


def _only_name() -> str:
    """The name in params.yaml, or the one registered model. Raises InputError when that leaves a choice."""
    path = Path("params.yaml")
    name = load_params(path).report.register_as if path.exists() else None
    return name or Registry(Path.cwd()).only_name()


def _champion() -> str:
    return f"{_only_name()}@{CHAMPION}"


def _rules() -> Rules:
    params = load_params(Path("params.yaml"))
    limits = params.promote
    band = (limits.yes_rate[0], limits.yes_rate[1])
    thresholds = Thresholds(limits.require, limits.minimum, limits.max_drop, limits.max_gap_over_floor, band)
    return Rules(thresholds, limits.require_clean, params.seed, differing_answers)


def _tell(decision: Decision, as_json: bool) -> None:
    click.echo(json.dumps(decision.as_json(), indent=2) if as_json else decision.markdown().rstrip())
