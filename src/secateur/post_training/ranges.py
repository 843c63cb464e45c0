"""What calibration sees of values inside a network: a sample of each, from runs in the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from secateur.constraints._observers import sample_of
from secateur.engine import InferenceSession
from secateur.export._canonical import Canonical
from secateur.post_training.calibration import Examples
from secateur.post_training.reading import assembled
from secateur.types import Progress

Sample = NDArray[np.float32]
Report = Callable[[Progress], None] | None

ROWS = 64  # of a sample: 1 MB a value, however many the examples
_RUN_NBYTES = 64 << 20  # of the values that one run may give
_MOST = 64  # examples of a run


def samples(
    g: Canonical, values: Sequence[str], data: Examples, threads: int | None, report: Report
) -> dict[str, Sample]:
    """Float32 [rows, values] by name: evenly spaced values of every batch, its smallest and largest among them.

    Raises:
        ConstraintError: NaN or infinity inside the network, with the value's name.
    """
    inputs = {i.name for i in g.inputs}
    inner = [v for v in values if v not in inputs and v not in g.output_names]
    session = InferenceSession(assembled(g, inner), threads)
    asked = [v for v in values if v not in inputs]
    most = batch_size(session, asked, data)
    n = -(-data.n // (data.batch or most))
    per_row = -(-n // ROWS)
    rows: dict[str, list[Sample]] = {v: [] for v in values}
    open_: dict[str, list[Sample]] = {v: [] for v in values}
    began = time.monotonic()
    for i, feeds in enumerate(data.batches(most), 1):
        seen = dict(zip(asked, session.run(asked, feeds) if asked else [], strict=True)) | feeds
        for v in values:
            open_[v].append(sample_of(seen[v], v))
            if len(open_[v]) == per_row or i == n:
                rows[v].append(sample_of(np.concatenate(open_[v]), v))
                open_[v] = []
        if report:
            report(Progress("ranges", i, n, time.monotonic() - began))
    return {v: np.stack(found) for v, found in rows.items()}


def find_shapes(g: Canonical, data: Examples, threads: int | None) -> None:
    """Shapes that ONNX's inference leaves open, of one run: sums and means are told by those of their operands.

    Outputs of which the file says no shape get as many free axes as they have, for ONNX's checker asks for them.
    """
    floats = {v for v, kind in g.types.items() if kind == TensorProto.FLOAT} - g.constants.keys()
    asked: dict[str, None] = {}
    for n in g.nodes:
        operands = [i for i in n.input if i in floats] if n.op_type in ("Add", "ReduceMean") else []
        shapes = [g.shapes.get(i) for i in operands]
        if None in shapes or (len(shapes) == 2 and shapes[0] != shapes[1]):
            asked |= dict.fromkeys(operands)
    inputs = {i.name for i in g.inputs}
    inner = [v for v in asked if v not in inputs]
    if inner:
        more = [v for v in inner if v not in g.output_names]
        seen = InferenceSession(assembled(g, more), threads).run(inner, next(data.batches(1)))
        g.shapes.update({v: list(a.shape) for v, a in zip(inner, seen, strict=True)})
    if open_ := [o for o in g.outputs if not o.type.tensor_type.HasField("shape")]:
        names = [o.name for o in open_]
        for o, a in zip(open_, InferenceSession(assembled(g), threads).run(names, next(data.batches(1))), strict=True):
            for i in range(np.ndim(a)):
                o.type.tensor_type.shape.dim.add().dim_param = f"{o.name}_{i}"


def batch_size(session: InferenceSession, asked: Sequence[str], data: Examples) -> int:
    """How many examples a run may take so that what it gives stays small."""
    if data.batch is not None or not asked:
        return _MOST
    one = session.run(list(asked), next(data.batches(1)))
    return max(1, min(_MOST, _RUN_NBYTES // max(1, sum(a.nbytes for a in one))))
