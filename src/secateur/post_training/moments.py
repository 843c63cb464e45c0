"""What layers read, as pruning needs it: energy and mean of every input feature, from runs in the engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.engine import InferenceSession
from secateur.errors import ConstraintError
from secateur.export._canonical import Canonical
from secateur.post_training.calibration import Examples
from secateur.post_training.places import Layer
from secateur.post_training.ranges import Report, batch_size
from secateur.post_training.reading import assembled
from secateur.types import Progress

Floats = NDArray[np.float64]


@dataclass
class Moments:
    """Of one value, by feature (channels of a convolution's input, columns of rows): sums over all else."""

    squares: Floats
    sums: Floats
    n: int = 0

    @property
    def mean(self) -> Floats:
        """Float64 [features]."""
        return self.sums / max(self.n, 1)


def moments(
    g: Canonical, layers: Sequence[Layer], data: Examples, threads: int | None, report: Report
) -> dict[str, Moments]:
    """By name of the value that a layer reads.

    Raises:
        ConstraintError: NaN or infinity inside the network, with the value's name.
    """
    axes = {str(x.node.input[0]): 1 if x.node.op_type == "Conv" else -1 for x in layers}
    inputs = {i.name for i in g.inputs}
    asked = [v for v in axes if v not in inputs]
    session = InferenceSession(assembled(g, [v for v in asked if v not in g.output_names]), threads)
    size = batch_size(session, asked, data)
    n, began = -(-data.n // (data.batch or size)), time.monotonic()
    found: dict[str, Moments] = {}
    for i, feeds in enumerate(data.batches(size), 1):
        seen = dict(zip(asked, session.run(asked, feeds) if asked else [], strict=True)) | feeds
        for name, axis in axes.items():
            rows = np.moveaxis(seen[name], axis, -1).reshape(-1, seen[name].shape[axis]).astype(np.float64)
            squares = (rows * rows).sum(axis=0)
            if not np.isfinite(squares).all():
                raise ConstraintError(f"calibration: {name} has values that are NaN or infinite; give finite data")
            known = found.setdefault(name, Moments(np.zeros(len(squares)), np.zeros(len(squares))))
            known.squares += squares
            known.sums += rows.sum(axis=0)
            known.n += len(rows)
        if report:
            report(Progress("ranges", i, n, time.monotonic() - began))
    return found
