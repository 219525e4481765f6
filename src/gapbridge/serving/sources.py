"""Where a served model comes from: a directory, or the registry's version that an alias names."""

import logging
import time
from pathlib import Path
from typing import Protocol

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError
from gapbridge.registry import CHAMPION, Registry, Version

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Names the version that should be served, and has its files."""

    name: str
    """What clients call the model."""

    def current(self) -> Version:
        """The version to serve now. Raises InputError while that cannot be known."""

    def folder(self, version: Version) -> Path:
        """Its files. Raises InputError while they cannot be had, ArtifactError where they are damaged."""


class FolderSource:
    """A model directory; always the same version."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactError where there is no model."""
        if not (folder / "config.json").is_file():
            raise ArtifactError(f"{folder}: not a model directory; train one or name another")
        self._folder = folder
        self.name = folder.resolve().name
        self._version = Version(self.name, 0, artifacts.dvc_digest(folder))

    def current(self) -> Version:
        """See Source."""
        return self._version

    def folder(self, version: Version) -> Path:
        """See Source."""
        return self._folder


class AliasSource:
    """A registered model by its alias, `NAME@ALIAS`."""

    def __init__(self, registry: Registry, model: str | None, default_name: str | None, cache: Path) -> None:
        """`default_name` or the only registered model where `model` is None, the alias champion where it names none.

        Raises InputError where that leaves it open.
        """
        name, _, alias = (model or default_name or registry.only_name()).partition("@")
        if not name:
            raise InputError(f"{model}: names no model; give NAME@ALIAS")
        self._registry, self._cache = registry, cache
        self.name = f"{name}@{alias or CHAMPION}"

    def current(self) -> Version:
        """See Source."""
        return self._registry.resolve(self.name)

    def folder(self, version: Version) -> Path:
        """See Source."""
        return self._registry.fetch(version, self._cache)


def wait_for_version(source: Source, poll_seconds: float) -> None:
    """Return as soon as the source names a version; says once what it waits for."""
    is_said = False
    while True:
        try:
            source.current()
            return
        except InputError as error:
            if not is_said:
                _log.info("waiting for %s: %s", source.name, error)
                is_said = True
            time.sleep(poll_seconds)
