"""Reads named arrays out of an .npz archive, trusting neither its sizes nor its types, and never unpickling."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import FormatError

# Room for a .npy header beside the values; NumPy writes 128 bytes for plain arrays.
_HEADER_BYTES = 4096


def read_arrays(
    path: Path, wanted: Mapping[str, tuple[str, tuple[int | None, ...]]], limit: int
) -> dict[str, NDArray[Any]]:
    """The arrays `wanted` (name -> dtype, shape; None = any length) of an .npz file.

    `limit` bounds the bytes of one array. Raises FormatError: not a zip archive, a missing array, another dtype or
    shape, a checksum that is wrong, an array beyond the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, path.name, name, *kind, limit) for name, kind in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{path.name}: not a readable .npz archive ({error})") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error


def _member(
    archive: zipfile.ZipFile, file: str, name: str, dtype: str, shape: tuple[int | None, ...], limit: int
) -> NDArray[Any]:
    subject = f"{file}: array {name!r}"
    if f"{name}.npy" not in archive.namelist():
        raise FormatError(f"{subject} is missing")
    with archive.open(f"{name}.npy") as stream:
        raw = stream.read(limit + _HEADER_BYTES + 1)
    if len(raw) > limit + _HEADER_BYTES:
        raise FormatError(f"{subject} is larger than the {limit} bytes allowed")
    stream_ = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream_)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found_shape, fortran, found_type = read(stream_, max_header_size=_HEADER_BYTES)
    except ValueError as error:
        raise FormatError(f"{subject}: not a .npy array ({error})") from error
    fits = len(found_shape) == len(shape) and all(w in (None, f) for f, w in zip(found_shape, shape, strict=False))
    if found_type != np.dtype(dtype) or fortran or not fits:
        want = f"{dtype} {['n' if s is None else s for s in shape]}"
        raise FormatError(f"{subject} is {found_type} {list(found_shape)}, {want} is needed")
    n = math.prod(found_shape)
    if n < 0 or len(raw) - stream_.tell() != n * found_type.itemsize:
        raise FormatError(f"{subject}: {len(raw) - stream_.tell()} bytes for {n} values of {found_type}")
    return np.frombuffer(raw, found_type, n, stream_.tell()).reshape(found_shape)
