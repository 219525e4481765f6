"""The MLflow side of tracking: sends one run folder to MLflow, while the stage is still writing it if need be.

`python -m gapbridge.mirror RUN_FOLDER` sends a run again that MLflow did not take.
"""

import fcntl
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import GapbridgeError, one_line
from gapbridge.tracking import flatten

EXPERIMENT = "gapbridge"
_POLL_SECONDS = 0.2
_SMALL_BYTES = 4 << 20
_SMALL_FILES = 100
_KEPT_SUFFIXES = {".png", ".json", ".jsonl", ".md", ".html", ".parquet", ".csv", ".txt"}
# MLflow's own limits on one request, and on a param's length.
_METRICS_A_BATCH, _PARAMS_A_BATCH, _PARAM_CHARACTERS, _METRIC_NAME_CHARACTERS = 1000, 100, 6000, 250


@contextmanager
def open_store(workspace: Path) -> Iterator[tuple[Any, str]]:
    """An MLflow client and the id of the experiment, made if need be.

    The store is `MLFLOW_TRACKING_URI`, or mlflow.db in the workspace. The lock is there because MLflow's first
    connection to a new database creates its tables, and two stages may start at the same time.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a command's output is its answer alone
    from mlflow import MlflowClient

    default = f"sqlite:///{workspace / 'mlflow.db'}"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default
    location = (workspace / "mlartifacts").as_uri() if uri == default else None
    _demand_answer(uri)
    lock_path = workspace / "runs" / ".mlflow.lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, location)
    yield client, experiment_id


def store_errors() -> tuple[type[Exception], ...]:
    """What comes of a server, a database or a bucket that refuses, cannot be reached, or is none."""
    from mlflow.exceptions import MlflowException

    errors: list[type[Exception]] = [MlflowException, OSError, ValueError]
    if importlib.util.find_spec("sqlalchemy"):
        from sqlalchemy.exc import SQLAlchemyError

        errors.append(SQLAlchemyError)
    if importlib.util.find_spec("botocore"):
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    return tuple(errors)


def _demand_answer(uri: str) -> None:
    """Ask a database server once. MLflow would ask it again and again for 100 seconds, and say so each time.

    Raises SQLAlchemyError when it refuses, ValueError where the driver that the address names is not installed.
    """
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from sqlalchemy import create_engine

    kind = uri.partition("://")[0].partition("+")[0]
    if kind not in DATABASE_ENGINES or kind == "sqlite":
        return
    try:
        engine = create_engine(uri)
    except ModuleNotFoundError as error:
        raise ValueError(f"{uri.partition(':')[0]} needs {error.name}, which is not installed here") from error
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def mirror_run(folder: Path, stage_process: int | None) -> None:
    """Send `folder` until its status.json says that the run ended, or `stage_process` is gone (status KILLED)."""
    record = artifacts.read_json(folder / "run.json")
    with open_store(Path(record["workspace"])) as (client, experiment_id):
        run = client.create_run(
            experiment_id, start_time=record["started_ms"], tags=record["tags"], run_name=record["stage"]
        )
        run_id = run.info.run_id
        _end_earlier_try(client, folder)
        place = {"run_id": run_id, "experiment_id": experiment_id, "uri": client.tracking_uri}
        if "@" not in client.tracking_uri:  # an address may hold a password
            artifacts.write_json(folder / "mlflow.json", place)
        _send_params(client, run_id, record["params"])
        status = _follow(client, run_id, folder, stage_process)
        _send_end(client, run_id, status)
        client.set_terminated(run_id, status["status"], status["ended_ms"])
    (folder / "mirror.log").unlink(missing_ok=True)


def _end_earlier_try(client: Any, folder: Path) -> None:
    """A run that an earlier try of this folder left in the same store would look for ever as if it still ran."""
    if not (folder / "mlflow.json").exists():
        return
    earlier = artifacts.read_json(folder / "mlflow.json")
    if earlier["uri"] == client.tracking_uri and client.get_run(earlier["run_id"]).info.status == "RUNNING":
        client.set_terminated(earlier["run_id"], "FAILED")


def _send_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(name, str(value)[:_PARAM_CHARACTERS]) for name, value in params.items()]
    for start in range(0, len(entries), _PARAMS_A_BATCH):
        client.log_batch(run_id, params=entries[start : start + _PARAMS_A_BATCH])


def _follow(client: Any, run_id: str, folder: Path, stage_process: int | None) -> dict[str, Any]:
    """Send metrics as they come; return the status the run ended with."""
    sent_bytes = 0
    while True:
        # In this order: what was written before the end is sent after the end was seen.
        ended = (folder / "status.json").exists()
        orphaned = stage_process is not None and os.getppid() != stage_process
        sent_bytes = _send_metrics(client, run_id, folder / "metrics.jsonl", sent_bytes)
        if ended:
            return artifacts.read_json(folder / "status.json")
        if orphaned or stage_process is None:
            status = {"status": "KILLED", "error": "the stage's process was ended", "ended_ms": time.time_ns() // 10**6}
            artifacts.write_json(folder / "status.json", status)
            return status
        time.sleep(_POLL_SECONDS)


def _send_metrics(client: Any, run_id: str, path: Path, sent_bytes: int) -> int:
    """Send the whole lines after `sent_bytes`; return up to where all is sent."""
    from mlflow.entities import Metric

    with path.open("rb") as handle:
        handle.seek(sent_bytes)
        text = handle.read()
    text = text[: text.rfind(b"\n") + 1]
    entries = [
        Metric(_metric_name(name), value, line["time_ms"], line["step"])
        for line in map(json.loads, text.splitlines())
        for name, value in line["values"].items()
    ]
    for start in range(0, len(entries), _METRICS_A_BATCH):
        client.log_batch(run_id, metrics=entries[start : start + _METRICS_A_BATCH])
    return sent_bytes + len(text)


def _metric_name(name: str) -> str:
    """As MLflow allows it. Reasons of bad rows have quotes in them, and one such name refuses the whole batch."""
    return re.sub(r"[^\w./: -]", "_", name)[:_METRIC_NAME_CHARACTERS]


def _send_end(client: Any, run_id: str, status: Mapping[str, Any]) -> None:
    """Final metrics, output digests, figures and small files; the error of a run that failed."""
    from mlflow.entities import Metric, RunTag

    metrics = [
        Metric(_metric_name(f"final.{name}"), float(value), status["ended_ms"], 0)
        for name, value in flatten(status.get("metrics", {})).items()
        if isinstance(value, (int, float))
    ]
    tags = [RunTag(f"output.{name}", digest) for name, digest in status.get("outputs", {}).items()]
    if "error" in status:
        tags.append(RunTag("error", status["error"][:_PARAM_CHARACTERS]))
    for start in range(0, len(metrics), _METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_BATCH])
    client.log_batch(run_id, tags=tags)
    for name, location in status.get("locations", {}).items():
        for path in _small_files(Path(location)):
            group = "figures" if path.suffix == ".png" else "files"
            relative = path.relative_to(location).parent
            client.log_artifact(run_id, str(path), (Path(group) / Path(name).name / relative).as_posix())


def _small_files(out: Path) -> list[Path]:
    """The files of an out that are worth a look and cheap to copy; the rest is DVC's."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.suffix in _KEPT_SUFFIXES]
    return [path for path in files if path.stat().st_size <= _SMALL_BYTES][:_SMALL_FILES]


def main(arguments: list[str]) -> None:
    """Mirror a run folder for the process with that number, or to its end; a failure is one line and status 1."""
    try:
        mirror_run(Path(arguments[0]).resolve(), int(arguments[1]) if len(arguments) > 1 else None)
    except (GapbridgeError, *store_errors()) as error:  # type: ignore[misc]  # mypy knows no * here
        sys.exit(f"error: MLflow did not take {arguments[0]}: {one_line(error)}")


if __name__ == "__main__":
    main(sys.argv[1:])
