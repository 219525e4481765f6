"""The command line of operating: what comes home, what may go, how a registered model does."""

import json
from pathlib import Path

import click

from gapbridge.adopt import adopt as take_over
from gapbridge.benchmark import benchmark as score
from gapbridge.cleanup import leftovers
from gapbridge.params import load_params
from gapbridge.promotion.commands import only_model


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
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
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
    click.echo(f"{len(found)} things, {total:.1f} MB: {done}")


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def benchmark(model: str | None, as_json: bool) -> None:
    """Score a registered MODEL (NAME@ALIAS, NAME/NUMBER; default: the champion) on the benchmarks that lie here."""
    found = score(Path.cwd(), model or f"{only_model()}@champion", load_params(Path("params.yaml")))
    click.echo(json.dumps(found.as_json()) if as_json else found.text())
