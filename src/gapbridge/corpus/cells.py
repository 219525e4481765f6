"""Single cells of a column of pictures in a Parquet or Arrow file, read near one another at little cost."""

import threading
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import pyarrow
import pyarrow.parquet


class Cells:
    """The bytes in one column, by row. Safe for several threads; the last group of rows stays in memory."""

    def __init__(self, path: Path, column: str) -> None:
        """Raises OSError or ValueError where the file or the column cannot be read."""
        self._lock, self._group, self._held = threading.Lock(), -1, None
        self._parquet, self._batches = None, None
        with path.open("rb") as handle:
            is_parquet = handle.read(4) == b"PAR1"
        if is_parquet:
            self._parquet = pyarrow.parquet.ParquetFile(path)
            groups = range(self._parquet.num_row_groups)
            counts = [self._parquet.metadata.row_group(number).num_rows for number in groups]
        else:
            stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
            self._batches = [batch.column(column) for batch in stream]
            counts = [len(batch) for batch in self._batches]
        self._column, self._ends = column, list(accumulate(counts))

    def read(self, row: int) -> bytes:
        """The bytes of the picture in that row. Raises IndexError or ValueError where there are none."""
        group = bisect_right(self._ends, row)
        if group == len(self._ends):
            raise IndexError(row)
        with self._lock:
            value = self._values(group)[row - (self._ends[group - 1] if group else 0)].as_py()
        content = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError(f"no picture in row {row}")
        return content

    def _values(self, group: int) -> pyarrow.Array | pyarrow.ChunkedArray:
        if self._batches is not None:
            return self._batches[group]
        if group != self._group and self._parquet is not None:
            self._held = self._parquet.read_row_group(group, columns=[self._column]).column(0)
            self._group = group
        return self._held
