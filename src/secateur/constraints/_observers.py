"""Observers: what scale fits values of activations. NumPy alone, for runs that have no torch too.

A sample is float [batches, values]; what must fit is a magnitude, for grids {scale * q} have no zero point. The names:
- `minmax`: the largest magnitude of all batches;
- `moving`: the moving average of the batches' largest magnitudes (0.9 old, 0.1 new), as torch's observers have it;
- `percentile`: that percentile of all magnitudes;
- `mse`: nothing must: the scale of the least squared error, exactly;
- `entropy`: the magnitude of the least Kullback-Leibler divergence of a histogram from its form in codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import ConstraintError
from secateur.native._native import best_scales

Floats = NDArray[np.float64]
OBSERVERS = ("minmax", "moving", "percentile", "mse", "entropy")
PERCENTILE = 99.99
ENDS = {True: (-128, 127), False: (0, 255)}  # by: signed?
_VALUES = 4096  # of a batch; ranges need the extremes, percentiles and errors no more than that
_MOMENTUM = 0.1  # of the newest batch in a moving range
_BINS = 2048


def sample_of(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Evenly spaced values of a batch, and its smallest and largest: float32 [4098].

    Args:
        values: of one activation, any shape.
        name: of the activation, for messages.
    Raises:
        ConstraintError: no values, NaN or infinity.
    """
    flat = np.asarray(values).reshape(-1).astype(np.float32, copy=False)
    if not flat.size:
        raise ConstraintError(f"calibration: {name} has no values; leave out empty batches")
    if wrong := int(flat.size - np.isfinite(flat).sum()):
        raise ConstraintError(
            f"calibration: {name} has {wrong} values that are NaN or infinite; finite data and weights are needed"
        )
    at = np.linspace(0, flat.size - 1, _VALUES).astype(np.int64)
    return np.concatenate([flat[at], [flat.min(), flat.max()]])


def scale_of(observer: str, sample: NDArray[Any], signed: bool, percentile: float = PERCENTILE) -> float:
    """The scale for values like those of `sample`, a float32 number > 0.

    A value that never was other than zero gets the scale 1.

    Args:
        observer: one of `OBSERVERS`.
        sample: float [batches, values].
        signed: codes -128..127, of which -128 is left to what lies beyond; else 0..255.
        percentile: for the observer of that name.
    Raises:
        ConstraintError: no values, NaN or infinity, or a negative value on an unsigned grid.
    """
    if not sample.size:
        raise ConstraintError(f"observed {list(sample.shape)}: no values; calibration needs at least one batch")
    if not np.isfinite(sample).all():
        raise ConstraintError(f"observed {list(sample.shape)}: NaN or infinite values; finite values are needed")
    if not signed and (sample < 0).any():
        raise ConstraintError("observed: negative values on an unsigned grid; set signed")
    size, top = np.abs(sample.astype(np.float64)), ENDS[signed][1]
    if observer == "mse":
        scale = float(best_scales(size.reshape(1, -1), np.ones((1, size.size)), top, True)[0])
    else:
        scale = _reach(observer, size, top, percentile) / top
    return float(np.float32(scale)) or 1.0


def _reach(observer: str, size: Floats, top: int, percentile: float) -> float:
    """The magnitude that must fit."""
    if observer == "entropy":
        return _entropy(size.ravel(), top)
    if observer == "percentile":
        return float(np.quantile(size, percentile / 100)) or float(size.max())
    most = size.max(axis=1).tolist()
    if observer == "minmax":
        return float(max(most))
    reach = most[0]
    for now in most[1:]:
        reach += _MOMENTUM * (now - reach)
    return float(reach)


def _entropy(size: Floats, top: int) -> float:
    """The upper edge of the bins whose histogram loses least when only `top` + 1 codes are left of it.

    For each edge: P holds the bins below it, and in the last of them all that lies beyond; Q shares the counts of the
    bins that fall together in a code evenly among those that are not empty. The edge of the least KL(P, Q) is taken,
    the largest of equals. The first bin gets the count of its neighbour: zeros, of which a ReLU makes many, are a code
    at every scale and decide nothing.

    Reference: Migacz, 8-bit Inference with TensorRT, GTC 2017 (pages 25 to 38); the first bin as NVIDIA's
    pytorch-quantization has it (`_compute_amax_entropy`).
    """
    n, most = top + 1, float(size.max())
    if not most:
        return 0.0
    counts, edges = np.histogram(size / most, _BINS, (0.0, 1.0))
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    best, at = np.inf, _BINS
    for i in range(_BINS, n - 1, -1):
        p = bins[:i].copy()
        code = np.arange(i) * n // i
        live = p > 0
        shared = np.bincount(code, p, n) / np.maximum(np.bincount(code, live, n), 1)
        q = np.where(live, shared[code], 0.0)
        p[-1] += bins[i:].sum()
        if not q.sum() or (p[-1] > 0 and q[-1] == 0):  # P may not be where Q is not
            continue
        p, q = p / p.sum(), q / q.sum()
        divergence = float((p[live] * np.log(p[live] / q[live])).sum())
        if divergence < best:
            best, at = divergence, i
    return float(edges[at]) * most
