"""IDX files (MNIST, Fashion-MNIST): plain, gzip or xz, read without trusting a length in them.

Format: bytes 0, 0, type (8 = unsigned byte), rank; one big-endian uint32 per dimension; the values in C order.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data import compressed
from secateur.errors import FormatError


def read_idx(path: str | Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """The uint8 array of an IDX file that must have `shape` (None = any length on that axis).

    Never unpacks more than the expected shape allows (16 MiB more where an axis is free to grow), so that a small
    hostile archive cannot fill the memory. Raises FormatError (damaged, truncated, too long, other shape or type).
    """
    path = Path(path)
    with compressed.opened(path) as stream:
        try:
            head = stream.read(4 + 4 * len(shape))
            if len(head) < 4 or head[:3] != b"\0\0\x08":
                raise FormatError(
                    f"{path.name}: not an IDX file of unsigned bytes (starts with {head[:4].hex() or 'nothing'})", 0
                )
            if head[3] != len(shape):
                raise FormatError(f"{path.name}: IDX array of rank {head[3]}, rank {len(shape)} is needed", 3)
            if len(head) < 4 + 4 * len(shape):
                raise FormatError(f"{path.name}: ends inside its header", len(head))
            found = tuple(int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(len(shape)))
            if any(want is not None and got != want for got, want in zip(found, shape, strict=True)):
                raise FormatError(f"{path.name}: holds an array {list(found)}, {_wanted(shape)} is needed", 4)
            n = math.prod(found)
            # 2**28 values are 268 MB, five times the largest set read here.
            if n > 2**28:
                raise FormatError(f"{path.name}: claims {n} values; at most {2**28} are read", 4)
            body = stream.read(n)
            if len(body) < n:
                raise FormatError(
                    f"{path.name}: {len(body)} of {n} values, the file is truncated", len(head) + len(body)
                )
            if stream.read(1):
                raise FormatError(f"{path.name}: more bytes than its header announces", len(head) + n)
        except compressed.DAMAGED as error:
            raise FormatError(f"{path.name}: the compressed file is damaged or truncated ({error})") from error
    return np.frombuffer(body, np.uint8).reshape(found).copy()


def _wanted(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("n" if s is None else str(s) for s in shape) + "]"
