"""Keeps what is slow to unpack as .npy files, found again by the hash of the packed file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def keep_unpacked(source: Path, folder: Path, size: tuple[int, int, int], unpack: Callable[[], Part]) -> Part:
    """`unpack()`, or what an earlier call kept in `folder` for a file of the same bytes.

    A folder that cannot be written and a kept file that is damaged cost time and nothing else. Images and labels are
    one array of rows, the label in the last column, so that they cannot come from different files.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:24]
    kept = folder / f"{source.stem}-{digest}.npy"
    n_pixels = size[0] * size[1] * size[2]
    try:
        table = np.load(kept, allow_pickle=False)
        if table.dtype == np.uint8 and table.ndim == 2 and table.shape[1] == n_pixels + 1 and len(table):
            return table[:, :-1].reshape(-1, *size), table[:, -1].copy()
    except (OSError, ValueError, EOFError):
        pass  # not kept yet, or damaged: unpack again
    images, labels = unpack()
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            np.save(stream, np.concatenate([images.reshape(len(images), -1), labels[:, None]], 1), allow_pickle=False)
        temporary.replace(kept)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return images, labels
