"""A folder of pictures, searched in depth; names that begin with a dot are left out."""

from collections.abc import Iterator
from pathlib import Path

from gapbridge import artifacts
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, shown_name, unfit_name
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Pictures without captions (kind `image`), by name.

    The id is the path relative to the folder, the group the path relative to the root.
    """
    del kind
    if origin.captions:
        raise InputError(f"sources.{origin.set_name}.captions: a folder has no captions; use format llava")
    folder = origin.folder()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        reason = unfit_name(name) or _refused(path, folder) or unfit_name(origin.relative(path.resolve()))
        if reason:
            shown = shown_name(name)
            yield BadRow(origin.path, f"{origin.path}/{shown}", shown, reason)
            continue
        place, inside_root = f"{origin.path}/{name}", origin.relative(path.resolve())
        record = {"id": name, "group_id": inside_root, "source": origin.path, "caption": None}
        yield Draft(place, record, f"root:{inside_root}")


def _files(folder: Path) -> Iterator[Path]:
    """Everything below `folder` that is not a folder itself, sorted; linked folders are not entered."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _refused(path: Path, folder: Path) -> str | None:
    try:
        artifacts.inside(folder, path)
    except (InputError, RuntimeError):  # RuntimeError: links in a circle
        return "the path leaves its root"
    if path.is_dir():
        return "a link to a folder; put the folder itself there"
    if path.suffix.lower() not in SUFFIXES:
        return "not named like a picture"
    return None
