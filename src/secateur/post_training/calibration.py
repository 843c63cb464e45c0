"""Calibration data: arrays from a file or the caller, checked against the model's inputs, handed out in batches."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UsageError
from secateur.limits import near, quoted
from secateur.native import _native

Array = NDArray[Any]
Given = str | os.PathLike[str] | Array | Mapping[str, Array]

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "int8": "int8", "uint8": "uint8", "int16": "int16",
    "uint16": "uint16", "int32": "int32", "int64": "int64", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Inputs by name, the first axis = examples.

    Attributes:
        batch: how many the model takes at a time; None: any number.
        n: how many are used: all, or as many as fill whole batches.
    """

    arrays: dict[str, Array]
    batch: int | None
    n: int

    def batches(self, most: int) -> Iterator[dict[str, Array]]:
        """Feeds of at most `most` examples, or of as many as the model takes."""
        size = self.batch or max(1, most)
        for at in range(0, self.n, size):
            yield {name: np.ascontiguousarray(a[at : at + size]) for name, a in self.arrays.items()}


def examples(given: Given, inputs: Sequence[_native.NodeArg], subject: str) -> Examples:
    """The calibration data for these inputs of a model.

    Args:
        given: an array (one input), arrays by input name, or the path of an .npy or .npz file with them.
        subject: the model, for messages.
    Raises:
        UsageError: no such file, names, dtypes or shapes that do not fit, no examples, NaN or infinity, or an input
            whose values are all the same.
    """
    where = f"calib {os.fspath(given)}" if isinstance(given, str | os.PathLike) else "calib"
    arrays = _named(_loaded(given, where), inputs, where, subject)
    for item in inputs:
        _check_shape(arrays[item.name], item, where, subject)
    sizes = {name: len(a) for name, a in arrays.items()}
    n = min(sizes.values())
    if len(set(sizes.values())) > 1:
        raise UsageError(f"{where}: {sizes} examples; every input needs as many as the others")
    fixed = {i.shape[0] for i in inputs if isinstance(i.shape[0], int)}
    if len(fixed) > 1:
        raise UsageError(f"{subject}: its inputs have first axes of {sorted(fixed)}; one number of examples is needed")
    batch = fixed.pop() if fixed else None
    if n < (batch or 1):
        raise UsageError(f"{where}: {n} examples; at least {batch or 1} of real data are needed")
    for name, a in arrays.items():
        _check_values(a, f"{where}: input {quoted(name)}")
    return Examples(arrays, int(batch) if batch else None, n - n % batch if batch else n)


def _loaded(given: Given, where: str) -> Array | dict[str, Array]:
    if not isinstance(given, str | os.PathLike):
        return np.asarray(given) if not isinstance(given, Mapping) else {k: np.asarray(a) for k, a in given.items()}
    path = Path(given)
    if not path.is_file():
        raise UsageError(f"{where}: no such file; give an .npy (one input) or .npz (arrays by input name)")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)  # examples are read as they are needed
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise UsageError(f"{where}: no .npy or .npz file that NumPy reads without pickle ({e})") from None


def _named(
    loaded: Array | dict[str, Array], inputs: Sequence[_native.NodeArg], where: str, subject: str
) -> dict[str, Array]:
    """Arrays by the names of the model's inputs."""
    names = [i.name for i in inputs]
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise UsageError(
                f"{where}: one array, but {subject} has the inputs {', '.join(names) or '(none)'}; give an .npz with "
                "an array of each name"
            )
        return {names[0]: loaded}
    if missing := [name for name in names if name not in loaded]:
        raise UsageError(f"{where}: nothing for the input {quoted(missing[0])}{near(missing[0], loaded)}")
    if unknown := [name for name in loaded if name not in names]:
        raise UsageError(f"{where}: {subject} has no input {quoted(unknown[0])}{near(unknown[0], names)}")
    return {name: loaded[name] for name in names}


def _check_shape(a: Array, item: _native.NodeArg, where: str, subject: str) -> None:
    wanted = item.type.removeprefix("tensor(").removesuffix(")")
    shape = ", ".join("n" if i == 0 and not isinstance(d, int) else str(d or "?") for i, d in enumerate(item.shape))
    needs = f"{subject} needs {_DTYPES.get(wanted, wanted)} [{shape}], the first axis = examples"
    came = f"{where}: input {quoted(item.name)} is {a.dtype} {list(a.shape)}"
    if not item.shape:
        raise UsageError(f"{subject}: input {quoted(item.name)} has no axis of examples, which calibration needs")
    fits = a.ndim == len(item.shape) and all(
        not isinstance(d, int) or d == size for d, size in zip(item.shape[1:], a.shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(f"{came}; {needs}; reshape it, or prepare the data as for inference")
    if str(a.dtype) != _DTYPES.get(wanted):
        raise UsageError(f"{came}; {needs}; convert it, scaled as in training: x.astype(np.{_DTYPES.get(wanted)})")


def _check_values(a: Array, subject: str) -> None:
    """In pieces: the file may be larger than memory."""
    first, constant = a.reshape(-1)[:1], True
    for at in range(0, len(a), 256):
        piece = a[at : at + 256]
        if a.dtype.kind == "f" and not np.isfinite(piece).all():
            row = at + int(np.argmax(~np.isfinite(piece.reshape(len(piece), -1)).all(axis=1)))
            raise UsageError(f"{subject}: example {row} has values that are NaN or infinite; finite data are needed")
        constant = constant and bool((piece == first).all())
    if constant:
        raise UsageError(f"{subject}: every value is the same, so ranges of activations mean nothing; give real data")
