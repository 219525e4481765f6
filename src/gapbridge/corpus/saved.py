"""Hugging Face `datasets` as `save_to_disk` leaves them: Arrow files that state.json lists."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow

from gapbridge import artifacts
from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError

STATE_FILE, SPLITS_FILE = "state.json", "dataset_dict.json"
_START, _END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How messages of an Arrow stream begin, and the one that ends it."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`) of one split."""
    return drafts(origin, kind, _rows(origin, kind))


def _rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    folder = origin.folder()
    _demand_one_split(origin, folder / SPLITS_FILE)
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        named = [artifacts.inside(folder, str(entry["filename"])) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError) as error:
        raise InputError(f"{origin.path}: no dataset that save_to_disk wrote ({error}); save it again") from error
    for file in named:
        path = columns.fit_path(origin.relative(file))
        try:
            with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
                _demand_end(file, path)
                wanted = columns.needed(origin, kind, stream.schema)
                batches = (part for batch in stream for part in _parts(batch.select(wanted)))
                yield from columns.rows(origin, kind, path, batches)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{path}: no Arrow file, or a damaged one ({error}); save the dataset again") from error


def _demand_end(file: Path, path: str) -> None:
    """A stream that is cut between two batches reads like a whole one: only its last message is missing."""
    with file.open("rb") as handle:
        begins = handle.read(len(_START))
        handle.seek(max(0, file.stat().st_size - len(_END)))
        if begins == _START and handle.read() != _END:
            raise InputError(f"{path}: the Arrow stream is cut short; copy it again, or save the dataset again")


def _demand_one_split(origin: Origin, file: Path) -> None:
    if not file.is_file():
        return
    try:
        splits = ", ".join(map(str, json.loads(file.read_text(encoding="utf-8"))["splits"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{origin.path}: {file.name} is damaged ({error}); save the dataset again") from error
    raise InputError(
        f"sources.{origin.set_name}.path: {origin.path} holds the splits {splits}; name one, {origin.path}/SPLIT"
    )


def _parts(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    for start in range(0, batch.num_rows, columns.BATCH_ROWS):
        yield batch.slice(start, columns.BATCH_ROWS)
