"""The command line: one command a stage, and what people do with the result. Everything heavy is imported late."""

import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gapbridge.errors import GapbridgeError, InputError
from gapbridge.stages import EMBED_SETS, STAGES

# Set before any library is imported, and only where the user has not decided otherwise.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Threads that wait sleep: spinning ones take the cores from a stage beside them (threefold CPU time measured).
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_LOUD_LIBRARIES = ("alembic", "httpx", "matplotlib", "mlflow", "open_clip", "PIL", "torch")


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

    params = [click.Argument(["item"], type=click.Choice(EMBED_SETS), metavar="SET")] if name == "embed" else []
    return click.Command(name, callback=run, params=params, help=f"Run the stage {name} (see dvc.yaml).")


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gapbridge")
def cli() -> None:
    """Train a multimodal language model from unpaired texts and images.

    `dvc repro` runs every stage that is out of date; a stage's own command runs it alone.
    """


for _stage in STAGES:
    cli.add_command(_stage_command(_stage))


def _passed_on(name: str, purpose: str, module: str = "gapbridge.align_cli") -> click.Command:
    """A command whose options are known to `module` alone, which is imported when it is called."""

    def run(arguments: tuple[str, ...]) -> None:
        if name in ("align", "drift"):
            # Rows go by blocks over threads of our own; threads of the matrix library beside them cost thrice the time.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        getattr(import_module(module), name).main(list(arguments), prog_name=f"gapbridge {name}")

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    arguments = [click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)]
    return click.Command(name, callback=run, params=list(arguments), help=purpose, context_settings=settings)


cli.add_command(_passed_on("align", "Fit and apply the alignment on vectors of your own."))
cli.add_command(_passed_on("gap", "Diagnose the gap between vectors of your own, with pictures and a page."))
cli.add_command(_passed_on("drift", "Say whether an alignment still fits new vectors."))
cli.add_command(_passed_on("serve", "Serve a registered model: API, chat page, metrics.", "gapbridge.serving.command"))


@cli.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Overwrite edits made to params.yaml by hand.")
def profile(name: str, force: bool) -> None:
    """Write params.yaml from profiles/NAME.yaml."""
    from gapbridge.profiles import apply_profile

    apply_profile(Path.cwd(), name, force=force)
    click.echo(f"params.yaml: profile {name}")


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
    """Answer QUESTION about IMAGE."""
    model = model or _trained_model()
    from gapbridge.evaluate.predict import ask as answer

    click.echo(answer(model, image, question))


@cli.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@_model_option
def describe(images: tuple[Path, ...], model: Path | None) -> None:
    """Say what each of the IMAGES shows, one line a picture."""
    model = model or _trained_model()
    from gapbridge.evaluate.predict import describe as captions

    for image, caption in zip(images, captions(model, list(images)), strict=True):
        click.echo(f"{image}: {caption}" if len(images) > 1 else caption)


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
    options: dict[str, Any] = {"prog_name": "gapbridge"}
    try:
        cli.main(arguments, **options)
    except GapbridgeError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


if __name__ == "__main__":  # torchrun starts modules
    main()
