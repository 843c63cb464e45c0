"""What a packed file takes, its large tensors not coded one by one: for sizes that are shown and limit nothing."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from secateur import formats

Array = np.ndarray[Any, Any]
WHOLE = 1 << 13  # values; smaller tensors are coded as they are
_FAST = 65_536  # kept values from which on the coder takes its fast codings
_KEPT = 70_000  # of a sample: as many
_BARE = 1 << 16  # values that are not even written as zeros; the graph then says their shapes in a byte or two less
_BAND = 64  # rows that stay together in a sample, for sets of blocks


def sections(onnx: bytes, left_out: Collection[str] = (), whole: float = WHOLE) -> dict[str, int]:
    """Bytes by section of the `.sct` file that packing would give; of large tensors an estimate.

    Of those of about one shape the one with the median number of nonzero values is coded, or some 70,000
    of its values; for the others its bits per value are taken, and their own places. Coding takes 0.7 to 2 us a value.

    Args:
        onnx: the file as it would be packed.
        left_out: parameters that are not counted.
        whole: tensors of fewer values are coded as they are.
    Returns:
        name -> bytes, with header, graph and checksum as `formats.sections` calls them, and tensors by parameter: what
        is stored turned (`.T`) under the plain name.
    """
    import onnx as onnx_package
    from onnx import numpy_helper

    model = onnx_package.load_model_from_string(onnx)
    alike: dict[Any, list[tuple[str, Array, int]]] = {}
    for t in model.graph.initializer:
        name = t.name.removesuffix(".T")
        if name not in left_out and math.prod(t.dims) < whole:
            continue
        array = numpy_helper.to_array(t)
        if name not in left_out:
            kept = int(np.count_nonzero(array))
            about = *(round(math.log2(d)) for d in t.dims[:2]), *t.dims[2:]
            alike.setdefault((t.data_type, about, kept < _FAST), []).append((name, array, kept))
        nothing = np.zeros((1,) * array.ndim if array.size >= _BARE else array.shape, array.dtype)
        t.CopyFrom(numpy_helper.from_array(nothing, t.name))
    found = exactly(formats.pack(model.SerializeToString()))
    for tensors in alike.values():
        found.update(_of_one_kind(tensors))
    return {k: n for k, n in found.items() if k not in left_out}


def exactly(sct: bytes) -> dict[str, int]:
    """The same of a packed file."""
    found: dict[str, int] = {}
    for s in formats.sections(sct):
        name = s.name.removesuffix(".T")
        found[name] = found.get(name, 0) + s.nbytes
    return found


def _of_one_kind(tensors: list[tuple[str, Array, int]]) -> dict[str, int]:
    typical, a, kept = sorted(tensors, key=lambda t: t[2])[len(tensors) // 2]
    coded, places = _coded(a, kept), _places(a.size, kept)
    bits = max((8 * coded - places) / max(kept, 1), 1.0)
    share = coded / max(places + bits * kept, 1.0)  # of blocks fewer places must be told
    found = {name: round(share * (_places(b.size, k) + bits * k)) for name, b, k in tensors}
    return found | {typical: coded}


def _coded(a: Array, kept: int) -> int:
    """Bytes of a tensor; of many values from bands of its rows, evenly spread."""
    if kept < 2 * _KEPT or a.ndim < 2:
        return formats.measure(a).nbytes
    bands = a.shape[0] // _BAND
    n = math.ceil(bands * _KEPT / kept) + 1
    if 2 * n > bands:
        return formats.measure(a).nbytes
    starts = [_BAND * (i * bands // n) for i in range(n)]
    part = np.concatenate([a[at : at + _BAND] for at in starts])
    return round(formats.measure(part).nbytes * kept / max(int(np.count_nonzero(part)), 1))


def _places(n: int, kept: int) -> float:
    """log2 of the number of ways to keep so many of n."""
    return (math.lgamma(n + 1) - math.lgamma(kept + 1) - math.lgamma(n - kept + 1)) / math.log(2)
