"""What a loader returns: the three splits and the facts about their set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.tensors import TensorData
from secateur.errors import FormatError, UsageError


@dataclass(frozen=True)
class Spec:
    """Facts about a data set: an example's shape ([C, H, W] for images), class names, how stored values become inputs.

    Inputs are (stored / full_scale - mean) / std per channel, float32.
    """

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    full_scale: float = 255.0
    note: str = ""


@dataclass(frozen=True)
class Splits:
    """Train, validation and test data: re-iterables of (inputs, targets). `test` is None where the user has none."""

    train: Iterable[Any]
    valid: Iterable[Any]
    test: Iterable[Any] | None = None
    spec: Spec | None = None


def tensor_data(
    spec: Spec,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    batch_size: int,
    what: str = "",
    channels_last: bool = False,
) -> TensorData:
    """Images (stored values, [N, H, W], [N, C, H, W] or, with `channels_last`, [N, H, W, C]) and labels as TensorData.

    Raises FormatError: no images, counts that differ, wrong shape, a label outside 0..classes-1.
    """
    subject = f"{spec.name} {what}".strip()
    if len(images) == 0:
        raise FormatError(f"{subject}: the data set is empty; at least one example is needed")
    if len(images) != len(labels):
        raise FormatError(f"{subject}: {len(images)} images but {len(labels)} labels; every image needs one label")
    if images.ndim == 3:
        images = images[:, None]
    elif channels_last:
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1:] != spec.shape:
        raise FormatError(f"{subject}: images are {list(images.shape[1:])}, {list(spec.shape)} is needed")
    check_labels(subject, labels, len(spec.classes))
    mean = torch.tensor(spec.mean).view(1, -1, 1, 1)
    std = torch.tensor(spec.std).view(1, -1, 1, 1)
    inputs = torch.from_numpy(np.ascontiguousarray(images)).to(torch.float32)
    inputs = inputs.div_(spec.full_scale).sub_(mean).div_(std)
    return TensorData(inputs, torch.from_numpy(labels.astype(np.int64)), batch_size)


def check_labels(subject: str, labels: NDArray[Any], n_classes: int) -> None:
    """FormatError where a label is outside 0..n_classes-1; says which row."""
    bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(bad):
        row = int(bad[0])
        raise FormatError(f"{subject}: label {int(labels[row])} in row {row}; labels must be 0 to {n_classes - 1}")


def as_splits(loaded: Any, subject: str) -> Splits:
    """What a user's loader returned as `Splits`: a Splits, or (train, valid), or (train, valid, test).

    Each part must be iterable more than once (not a generator) and give (inputs, targets) pairs.
    Raises UsageError: anything else, or an empty part.
    """
    if isinstance(loaded, Splits):
        splits = loaded
    else:
        if not isinstance(loaded, tuple | list) or len(loaded) not in (2, 3):
            raise UsageError(f"{subject}: returned {_kind(loaded)}; return (train, valid) or (train, valid, test)")
        splits = Splits(*loaded)
    for name in ("train", "valid", "test"):
        part = getattr(splits, name)
        if part is None and name == "test":
            continue
        check_batches(part, f"{subject}: {name}")
    return splits


def check_batches(part: Any, subject: str) -> None:
    """UsageError unless `part` is a re-iterable of (inputs, targets) pairs that is not empty. Reads one batch."""
    if not isinstance(part, Iterable):
        raise UsageError(f"{subject} is {_kind(part)}; a re-iterable of (inputs, targets) batches is needed")
    if iter(part) is part:
        raise UsageError(
            f"{subject} is {_kind(part)}, which can be read only once; "
            "give a list, a DataLoader or secateur.data.TensorData"
        )
    for first in part:
        if not isinstance(first, tuple | list) or len(first) != 2:
            raise UsageError(f"{subject}: a batch is {_kind(first)}; batches must be pairs (inputs, targets)")
        return
    raise UsageError(f"{subject}: the data set is empty; at least one example is needed")


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
