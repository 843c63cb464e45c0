"""How far the outputs of one form of a network are from those of another, over all examples."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine import InferenceSession
from secateur.errors import UnsupportedError
from secateur.limits import quoted
from secateur.post_training.calibration import Examples
from secateur.post_training.ranges import Report, batch_size
from secateur.types import Progress


@dataclass
class _Sums:
    """Of one output."""

    squares: float = 0.0
    difference: float = 0.0
    worst: float = 0.0
    most: float = 0.0
    same: int = 0
    rows: int = 0
    classes: bool = True

    def add(self, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        a, b = wanted.astype(np.float64), found.astype(np.float64)
        self.classes = self.classes and a.ndim == 2 and a.shape[1] > 1
        if self.classes:
            self.same += int((a.argmax(axis=1) == b.argmax(axis=1)).sum())
            self.rows += len(a)
        both = np.isfinite(a) & np.isfinite(b)  # masks are written as infinities
        a, b = a[both], b[both]
        self.squares += float((a * a).sum())
        self.difference += float(((a - b) ** 2).sum())
        self.worst = max(self.worst, float(np.abs(a - b).max(initial=0)))
        self.most = max(self.most, float(np.abs(a).max(initial=0)))

    def record(self) -> dict[str, Any]:
        return {
            "max_abs": self.worst,
            "max_abs_float": self.most,
            "relative_l2": float(np.sqrt(self.difference / self.squares)) if self.squares else None,
            "argmax_agree": self.same if self.classes else None,
            "argmax_of": self.rows if self.classes else None,
        }


def differences(
    wanted: InferenceSession, found: InferenceSession, data: Examples, report: Report = None, most: int | None = None
) -> dict[str, dict[str, Any]]:
    """By output: `max_abs` difference, `max_abs_float` (the largest magnitude of `wanted`), `relative_l2` (None where
    all of `wanted` is 0), and of rows of scores `argmax_agree` rows of `argmax_of` (else None).

    Args:
        most: batches that are compared; None: all.
    Raises:
        UnsupportedError: outputs of other shapes.
    """
    outputs = [o.name for o in wanted.get_outputs()]
    sums = {name: _Sums() for name in outputs}
    size = batch_size(wanted, outputs, data)
    n, began = -(-data.n // (data.batch or size)), time.monotonic()
    for i, feeds in enumerate(data.batches(size), 1):
        for name, a, b in zip(outputs, wanted.run(outputs, feeds), found.run(outputs, feeds), strict=True):
            if np.shape(a) != np.shape(b):
                raise UnsupportedError(
                    f"output {quoted(name)} became {list(np.shape(b))} where {list(np.shape(a))} is needed: ONNX's "
                    "converter changed what the network computes; export it anew with opset 17"
                )
            sums[name].add(np.asarray(a), np.asarray(b))
        if report:
            report(Progress("check", i, n, time.monotonic() - began))
        if i == most:
            break
    return {name: s.record() for name, s in sums.items()}
