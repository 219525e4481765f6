"""Single cells of a column of pictures in a Parquet or Arrow file, read near one another at little cost."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

_BATCH_ROWS, _BUFFER_BYTES = 64, 1 << 20


class Cells:
    """The bytes in one column, by row. Safe for several threads; rows in ascending order are read once."""

    def __init__(self, path: Path, column: str) -> None:
        """Raises OSError or ValueError where the file or the column cannot be read."""
        self._path, self._column, self._lock = path, column, threading.Lock()
        with path.open("rb") as handle:
            self._is_parquet = handle.read(4) == b"PAR1"
        self._start, self._held, self._rest = 0, None, self._batches()

    def read(self, row: int) -> bytes:
        """The bytes of the picture in that row. Raises IndexError or ValueError where there are none."""
        with self._lock:
            value = self._value(row)
        content = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError(f"no picture in row {row}")
        return content

    def _value(self, row: int) -> Any:
        if row < self._start:
            self._start, self._held, self._rest = 0, None, self._batches()
        while self._held is None or row >= self._start + len(self._held):
            self._start += 0 if self._held is None else len(self._held)
            self._held = next(self._rest, None)
            if self._held is None:
                self._start, self._rest = 0, self._batches()
                raise IndexError(row)
        return self._held[row - self._start].as_py()

    def _batches(self) -> Iterator[pyarrow.Array]:
        if self._is_parquet:
            table = pyarrow.parquet.ParquetFile(self._path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            batches = table.iter_batches(_BATCH_ROWS, columns=[self._column])
            return (batch.column(0) for batch in batches)
        stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(self._path)))
        return (batch.column(self._column) for batch in stream)
