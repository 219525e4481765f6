"""How a newly promoted model takes over from the one that is served.

A version whose files are damaged, that does not open, or that fails its probe is not tried again until the alias has
named another one. A registry that does not answer is asked again.
"""

import asyncio
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from gapbridge.errors import ArtifactError, GapbridgeError
from gapbridge.registered import RegisteredVersion
from gapbridge.serving.metrics import Metrics
from gapbridge.serving.served import ServedModel
from gapbridge.serving.sources import Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Following:
    """How it stands between the alias and what is served."""

    refused: RegisteredVersion | None = None
    """What the alias names, where it could not take over."""
    reason: str | None = None
    """Why, or why the registry could not be asked."""

    @property
    def content(self) -> dict[str, Any]:
        """For `/readyz`."""
        return {"refused_version": self.refused.number if self.refused else None, "reason": self.reason}


class Follower:
    """Holds the model that is served, and asks its source now and then for another."""

    def __init__(self, source: Source, min_probe_agreement: float, metrics: Metrics) -> None:
        """Opens the first model. Raises InputError and ArtifactError as its source and the model do."""
        self._source, self._min_probe_agreement, self._metrics = source, min_probe_agreement, metrics
        self._version = source.current()
        self.model = self._load(self._version)
        self.state = Following()
        self._thread = ThreadPoolExecutor(1, "follower")
        self._replaced = False
        self._show(self.state)
        metrics.show_model(self.model.name, self.model.version, self.model.digest)

    async def run(self, poll_seconds: float) -> None:
        """Look every `poll_seconds` until cancelled; the model changes between two requests."""
        while True:
            await asyncio.sleep(poll_seconds)
            look = asyncio.get_running_loop().run_in_executor(self._thread, self._look)
            await asyncio.wait([look])
            if error := look.exception():
                self._fail(error)
            elif model := look.result():
                _log.info("%s takes over from %s", model.label, self.model.label)
                self.model, self._replaced = model, True
                self._metrics.switches.inc()
                self._metrics.show_model(model.name, model.version, model.digest)

    def close(self) -> None:
        """Wait for a look that is under way."""
        self._thread.shutdown(cancel_futures=True)

    def _look(self) -> ServedModel | None:
        """The model that should take over; None where there is none, or none that can."""
        if self._replaced:
            self._replaced = False
            gc.collect()  # modules refer to each other in circles
        wanted = self._source.current()
        if wanted == self._version:
            self._show(Following())
            return None
        if wanted == self.state.refused:
            self._metrics.alias_reached.set(1)
            return None
        try:
            model = self._load(wanted)
        except ArtifactError as error:
            _log.error("%s stays out, %s goes on: %s", wanted, self.model.label, _one_line(error))
            self._show(Following(wanted, _one_line(error)))
            return None
        self._version = wanted
        self._show(Following())
        return model

    def _load(self, version: RegisteredVersion) -> ServedModel:
        folder = self._source.folder(version)
        return ServedModel.load(folder, self._source.name, version.number, version.digest, self._min_probe_agreement)

    def _fail(self, error: BaseException) -> None:
        """A look that could not be finished is taken again; each reason is logged once."""
        reason = _one_line(error)
        if reason != self.state.reason:
            _log.error("%s: %s", self._source.name, reason, exc_info=None if _is_expected(error) else error)
        self.state = replace(self.state, reason=reason)
        self._metrics.alias_reached.set(0)

    def _show(self, state: Following) -> None:
        self.state = state
        self._metrics.refused_version.set(int(state.refused.number) if state.refused else 0)
        self._metrics.alias_reached.set(1)


def _is_expected(error: BaseException) -> bool:
    return isinstance(error, GapbridgeError)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
