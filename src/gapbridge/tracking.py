"""What a stage tells the world about itself: files in runs/ first, mirrored to MLflow where it is installed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes what a stage reports while it runs. Nothing logged here enters an out."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at one step, kept in runs/<stage>/metrics.jsonl and sent to MLflow in batches."""

    def log_artifact(self, path: Path) -> None:
        """A file or folder to keep beside the run."""

    def finish(self, out: Path, metrics: Mapping[str, Any]) -> None:
        """The stage ended well: its out and its final metrics."""


@contextmanager
def open_tracker(workspace: Path, label: str, params: dict[str, Any], inputs: dict[str, str]) -> Iterator[Tracker]:
    """A tracker for one run of the stage `label`."""
    raise NotImplementedError
