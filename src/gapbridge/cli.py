"""The command line: one command a stage, and what people do with the result. Everything heavy is imported late."""

import errno
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gapbridge.errors import GapbridgeError, InputError
from gapbridge.planning.hardware import GPUS, Hardware
from gapbridge.stages import EMBED_SETS, PURPOSES, STAGES

# Set before any library is imported, and only where the user has not decided otherwise.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Threads that wait sleep: spinning ones take the cores from a stage beside them (threefold CPU time measured).
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_LOUD_LIBRARIES = ("alembic", "httpx", "matplotlib", "mlflow", "open_clip", "PIL", "torch")
_REMEDIES = {
    errno.ENOSPC: "free space and run it again",
    errno.EDQUOT: "free space and run it again",
    errno.EROFS: "work in a folder that can be written",
    errno.EACCES: "see to its permissions and run it again",
    errno.EPERM: "see to its permissions and run it again",
}
"""What to do about errors of the file system that are not ours."""


class _InOrder(click.Group):
    """Lists the stages in the order they run, then the rest."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


def _stage_command(name: str) -> click.Command:
    """`gapbridge <stage>`; `embed` alone takes the set to embed."""

    def run(item: str | None = None) -> None:
        from gapbridge.stages.runner import die_with_parent, run_stage

        if "DVC_STAGE" in os.environ:
            die_with_parent()
        run_stage(name, item)

    params: list[click.Parameter] = []
    if name == "embed":
        params.append(click.Argument(["item"], type=click.Choice(EMBED_SETS), metavar="SET"))
    return click.Command(name, callback=run, params=params, help=PURPOSES[name])


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gapbridge")
def cli() -> None:
    """Train a multimodal language model from unpaired texts and images.

    `dvc repro` runs every stage that is out of date; a stage's own command runs it alone.
    """


for _stage in STAGES:
    cli.add_command(_stage_command(_stage))


def _passed_on(name: str, purpose: str, module: str) -> click.Command:
    """A command whose options are known to one module of gapbridge alone, which is imported when it is called."""

    def run(arguments: tuple[str, ...]) -> None:
        if name in ("align", "drift"):
            # Rows go by blocks over threads of our own; threads of the matrix library beside them cost thrice the time.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        command: click.Command = getattr(import_module(f"gapbridge.{module}"), name)
        command.main(list(arguments), prog_name=f"gapbridge {name}")

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    arguments = [click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)]
    return click.Command(name, callback=run, params=list(arguments), help=purpose, context_settings=settings)


for _name, _purpose, _module in (
    ("align", "Fit and apply the alignment on vectors of your own.", "align_cli"),
    ("gap", "Diagnose the gap between vectors of your own, with pictures and a page.", "align_cli"),
    ("drift", "Say whether an alignment still fits new vectors.", "align_cli"),
    ("promote", "Make a registered version the champion, if it passes the gates.", "operations_cli"),
    ("rollback", "Make the champion from before the present one champion again.", "operations_cli"),
    ("lineage", "Say what a registered version was made from.", "operations_cli"),
    ("benchmark", "Score a registered model on the benchmarks that lie here.", "operations_cli"),
    ("adopt", "Take over the stages that ran on a machine without DVC and MLflow.", "operations_cli"),
    ("cleanup", "List or remove old work that nothing names any more.", "operations_cli"),
    ("doctor", "Say what is missing, too old or not reachable, and what to do.", "operations_cli"),
    ("serve", "Serve a registered model: API, chat page, metrics.", "serving.command"),
):
    cli.add_command(_passed_on(_name, _purpose, _module))


@cli.command()
@click.argument("name")
@click.option("--show", is_flag=True, help="Print the whole params instead; nothing is written.")
@click.option("--diff", is_flag=True, help="Print what writing would change in the present params.yaml instead.")
@click.option("--force", is_flag=True, help="Overwrite edits made to params.yaml by hand.")
def profile(name: str, show: bool, diff: bool, force: bool) -> None:
    """Write params.yaml from profiles/NAME.yaml."""
    from gapbridge import profiles

    if show:
        click.echo(profiles.profile_text(Path.cwd(), name), nl=False)
    if diff:
        for key, there, value in profiles.differences(Path.cwd(), name):
            click.echo(f"{key}: {_yaml(there)} -> {_yaml(value)}")
    if not show and not diff:
        profiles.apply_profile(Path.cwd(), name, force=force)
        click.echo(f"params.yaml: profile {name}")


def _yaml(value: Any) -> str:
    """One line."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


def _trained_model() -> Path:
    model = Path("artifacts/instruct")
    if not (model / "config.json").exists():
        raise InputError(f"{model}: no trained model here; run `make demo` or `dvc repro` first, or pass --model DIR")
    return model


_model_option = click.option(
    "--model", type=click.Path(path_type=Path), default=None, help="A model directory; default artifacts/instruct."
)


@cli.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@_model_option
def ask(image: Path, question: str, model: Path | None) -> None:
    """Answer QUESTION about IMAGE, a picture or (as .npy) a vector of the model's encoder."""
    model = model or _trained_model()
    from gapbridge.evaluate.predict import ask as answer

    click.echo(answer(model, image, question))


@cli.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@_model_option
def describe(images: tuple[Path, ...], model: Path | None) -> None:
    """Say what each of the IMAGES (pictures, or vectors as .npy) shows, one line each."""
    model = model or _trained_model()
    from gapbridge.evaluate.predict import describe as captions

    for image, caption in zip(images, captions(model, list(images)), strict=True):
        click.echo(f"{image}: {caption}" if len(images) > 1 else caption)


@cli.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSON Lines file; gone on with.")
@click.option("--question", default="describe the picture", show_default=True, help="For lines without one.")
@click.option("--images", type=click.Path(path_type=Path), help="Where a list's pictures are; default beside it.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Pictures at once.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Of an answer.")
@_model_option
def predict(
    source: Path, out: Path, question: str, images: Path | None, batch_size: int, max_new_tokens: int,
    model: Path | None,
) -> None:  # fmt: skip
    """Answer about each picture of INPUT, a folder or JSON Lines of {"id"?, "image", "question"?}.

    One line an answer is appended to OUT, in the order of INPUT. A picture that cannot be read becomes a line with
    an `error`. The same command goes on where a stopped one ended; exit status 1 only if nothing could be answered.
    """
    model = model or _trained_model()
    from gapbridge.evaluate.answer_file import Settings
    from gapbridge.evaluate.answer_file import predict as answer_all

    tally = answer_all(model, source, out, question, Settings(batch_size, max_new_tokens), images)
    if not tally.answered:
        raise InputError(f"{source}: nothing could be answered, {tally.failed} errors; the first: {tally.first_error}")
    before = f", {tally.kept} of them before" if tally.kept else ""
    click.echo(f"{out}: {tally.answered} answers, {tally.failed} errors{before}")


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--card", type=click.Path(path_type=Path), help="Its card; default artifacts/report/model_card.md.")
@_model_option
def export(folder: Path, card: Path | None, model: Path | None) -> None:
    """Write model and card to DIR, new or empty, and check that the copy answers as the original does."""
    model = model or _trained_model()
    from gapbridge.export import export as write

    report = Path("artifacts/report")
    done = write(model, card or report / "model_card.md", folder, report)
    click.echo(
        f"{folder}: {done.files} files, {done.size_bytes / 1e6:.1f} MB; {done.questions} probe questions answered alike"
    )


@cli.command()
@click.option("--profile", "name", help="Plan this profile; default: the present params.yaml.")
@click.option("--gpu", default="h100", show_default=True, type=click.Choice(list(GPUS)))
@click.option("--gpus", default=1, show_default=True, type=click.IntRange(1), help="How many; each holds the model.")
@click.option("--utilisation", default=0.35, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def plan(name: str | None, gpu: str, gpus: int, utilisation: float, as_json: bool) -> None:
    """Say what a run would read, compute and need, and what is missing. Starts nothing, writes nothing.

    Exit status 3 where files are missing or cannot be read.
    """
    import json

    from gapbridge.params import load_params
    from gapbridge.profiles import profile_params

    params = load_params(Path("params.yaml")) if name is None else profile_params(Path.cwd(), name)
    from gapbridge.planning.plan import make_plan
    from gapbridge.planning.told import plan_text

    found = make_plan(Path.cwd(), params, Hardware(gpu, gpus, utilisation))
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else plan_text(found))
    if found["missing"] or found["problems"]:
        sys.exit(3)


@cli.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_(as_json: bool) -> None:
    """Name what is supported: readers, encoders, language models, aligners, benchmarks, profiles."""
    import json

    from gapbridge.listing import listing, listing_text

    found = listing(Path.cwd())
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else listing_text(found))


@cli.command()
def summary() -> None:
    """Print the scores and where everything lies."""
    from gapbridge.report.summary import table

    click.echo(table(Path.cwd()))


def _worth_reading(record: logging.LogRecord) -> bool:
    """Leaves out what libraries (open_clip) chat to the root logger; ours have names."""
    return record.name != "root" or record.levelno >= logging.WARNING


def main(arguments: list[str] | None = None) -> None:
    """The entry point: run a command; an expected error becomes one line on stderr and exit status 1."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_reading)
    for library in _LOUD_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its tries; what came of them is in the error
    options: dict[str, Any] = {"prog_name": "gapbridge"}
    try:
        cli.main(arguments, **options)
    except GapbridgeError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror}; {_REMEDIES[error.errno]}", err=True)
        sys.exit(1)


if __name__ == "__main__":  # torchrun starts modules
    main()
