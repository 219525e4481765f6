"""Files that hold one matrix, `.npy` and `.safetensors`: where its numbers begin, their type and shape.

Shapes: `n` rows, `d` width.
"""

import json
import struct
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gapbridge.errors import ArtifactError, InputError

_SAFETENSORS_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class Part:
    """One matrix (rows, width) inside a file, from byte `offset` on, and what is known of its rows."""

    path: Path
    offset: int
    dtype: np.dtype
    rows: int
    width: int
    ids_path: Path | None = None
    """A parquet file with one row a vector."""
    sha256: str | None = None
    """What the file's digest has to be, where an index says so."""


def open_part(path: Path) -> Part:
    """The matrix in one .npy or .safetensors file.

    Raises InputError where it is no such file, or no matrix of fp16, fp32 or fp64 numbers; ArtifactError where it ends
    too soon.
    """
    return _safetensors(path) if path.suffix == ".safetensors" else npy_part(path)


def npy_part(path: Path) -> Part:
    """The matrix in a .npy file. Raises as `open_part` does."""
    try:
        with path.open("rb") as handle:
            version = np.lib.format.read_magic(handle)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(handle)
            offset = handle.tell()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a matrix saved with numpy.save") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{path}: no .npy file, or a damaged one; give a matrix saved with numpy.save") from error
    if fortran and min(shape, default=0) > 1:
        raise InputError(f"{path}: stored by columns; save numpy.ascontiguousarray of it")
    return _part(path, offset, dtype, shape)


def _safetensors(path: Path) -> Part:
    try:
        with path.open("rb") as handle:
            size = struct.unpack("<Q", handle.read(8))[0]
            if size > path.stat().st_size:
                raise ValueError("a header longer than the file")
            header = json.loads(handle.read(size))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        matrices = {name: entry for name, entry in tensors.items() if len(entry["shape"]) == 2}
        if len(matrices) != 1:
            names = ", ".join(sorted(tensors)) or "none"
            raise InputError(f"{path}: expected one matrix, found the tensors {names}; save one matrix a file")
        entry = next(iter(matrices.values()))
        dtype = np.dtype(_SAFETENSORS_TYPES.get(entry["dtype"], "V1"))
        return _part(path, 8 + size + entry["data_offsets"][0], dtype, tuple(entry["shape"]), entry["dtype"])
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a .safetensors file") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(f"{path}: no .safetensors file, or a damaged one ({error}); save it again") from error


def _part(path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...], type_name: str | None = None) -> Part:
    if len(shape) != 2 or dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        found = f"{type_name or dtype} {shape}"
        raise InputError(f"{path}: expected a matrix of fp16, fp32 or fp64 numbers, found {found}")
    if min(shape) < 1:
        raise InputError(f"{path}: holds no numbers, its shape is {shape}; give two rows or more")
    size = path.stat().st_size
    if size < offset + shape[0] * shape[1] * dtype.itemsize:
        raise ArtifactError(f"{path}: cut short, {size} bytes for a matrix of {shape}; copy it again")
    return Part(path, offset, dtype, shape[0], shape[1])
