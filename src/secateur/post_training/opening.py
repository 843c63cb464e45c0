"""A file and its examples, read and checked: what every way through this room begins with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from secateur.engine import InferenceSession
from secateur.errors import UnsupportedError, UsageError
from secateur.export._canonical import Canonical
from secateur.limits import near, quoted
from secateur.post_training.calibration import Examples, Given, examples
from secateur.post_training.differences import differences
from secateur.post_training.places import Layer, layers
from secateur.post_training.ranges import find_shapes
from secateur.post_training.reading import assembled, read, simplified

_SAME = 1e-3  # relative difference up to which two float32 forms are the same function
ASKED = "kept float, as asked"


@dataclass(frozen=True)
class Opened:
    """A float32 network and its examples.

    Attributes:
        subject: what messages call it.
        original: the ONNX file, weights inside. `dense`: its session.
        graph: its short form. `layers`: every node of it with weights.
        left: result of a layer -> why it stays float32.
    """

    subject: str
    original: bytes
    dense: InferenceSession
    data: Examples
    graph: Canonical
    layers: list[Layer]
    left: dict[str, str]
    threads: int | None


def opened(
    path_or_bytes: str | os.PathLike[str] | bytes, calib: Given, keep: str | Sequence[str], threads: int | None
) -> Opened:
    """Read and check; nothing is measured but the shapes that ONNX cannot tell.

    Raises:
        As `int8.quantize`.
    """
    subject, model = read(path_or_bytes)
    original = model.SerializeToString()
    dense = InferenceSession(original, threads)
    data = examples(calib, dense.get_inputs(), subject)
    g = simplified(model, subject)
    every = layers(g)
    left = _kept(every, [keep] if isinstance(keep, str) else list(keep), subject)
    _check_same(g, dense, data, threads, subject)
    find_shapes(g, data, threads)
    return Opened(subject, original, dense, data, g, every, left, threads)


def _kept(every: Sequence[Layer], patterns: Sequence[str], subject: str) -> dict[str, str]:
    """Result of a layer -> why it stays float32."""
    left = {x.result: x.why_not for x in every if x.why_not}
    for pattern in patterns:
        hit = [x for x in every if any(fnmatchcase(name, pattern) for name in x.names)]
        if not hit:
            known = [name for x in every for name in x.names]
            raise UsageError(f"keep: pattern {quoted(pattern)} matches no layer of {subject}{near(pattern, known)}")
        left |= {x.result: ASKED for x in hit}
    return left


def _check_same(g: Canonical, dense: InferenceSession, data: Examples, threads: int | None, subject: str) -> None:
    """The graph that is worked on computes what the file does: on the first batch."""
    plain = InferenceSession(assembled(g), threads)
    for name, row in differences(dense, plain, data, most=1).items():
        if not (row["relative_l2"] or 0.0) <= _SAME:
            raise UnsupportedError(
                f"{subject}: folding its norms and lifting its opset moved output {quoted(name)} by "
                f"{row['relative_l2']:.2g} of its norm; export it anew with opset 17"
            )
