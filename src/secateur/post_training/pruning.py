"""One-shot pruning of a float32 ONNX file with calibration data under a budget: no torch, no training."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur import formats
from secateur.budget import kinds
from secateur.constraints._observers import PERCENTILE
from secateur.engine import InferenceSession, inspect
from secateur.errors import BudgetError, HandedOverWarning, UsageError
from secateur.export._canonical import Canonical, attributes, put
from secateur.limits import quoted
from secateur.post_training import table
from secateur.post_training.calibration import Given
from secateur.post_training.differences import differences
from secateur.post_training.int8 import check_observer, integers, layer_rows
from secateur.post_training.moments import Moments, moments
from secateur.post_training.opening import Opened, opened
from secateur.post_training.places import Layer
from secateur.post_training.ranges import Report
from secateur.post_training.reading import assembled
from secateur.shell import saving
from secateur.shell.showing import Shown
from secateur.types import Progress

KINDS = ("nbytes", "nnz", "macs")
_TRIES = 10  # files that are written to meet a budget in bytes
_NEAR = 0.99  # of the budget in bytes: near enough


@dataclass(frozen=True)
class Pruned:
    """A pruned network: its ONNX file, the packed form, and `report` (keys: the end of `prune`)."""

    model: bytes
    sct: bytes
    report: Shown

    def __str__(self) -> str:
        return str(self.report)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.onnx, model.sct and report.json; the folder is made when missing."""
        saving.make_folder(Path(folder))
        for name, data in zip(FILES, (self.model, self.sct, saving.to_json(dict(self.report))), strict=True):
            saving.write_bytes(Path(folder) / name, data)


FILES = ("model.onnx", "model.sct", "report.json")


def prune(
    path_or_bytes: str | os.PathLike[str] | bytes,
    calib: Given,
    budget: Mapping[str, Any] | None = None,
    *,
    int8: bool = False,
    keep: str | Sequence[str] = (),
    observer: str = "minmax",
    percentile: float = PERCENTILE,
    threads: int | None = None,
    on_progress: Report = None,
) -> Pruned:
    """Set the weights to zero that matter least to what their layers compute, until the budget holds.

    A weight's score is w^2 * sum x^2 over the examples, x = what it is multiplied with (Wanda's, squared), as a share
    of its layer's, divided by what the weight costs; one threshold holds for all layers, so that each loses the same
    for the last weight that goes. Taps of a convolution count alike. Biases take over the mean of
    what is removed.
    Heuristic: layers are looked at one by one, in the dense network.

    Args:
        path_or_bytes, calib, keep, threads, on_progress: as of `quantize`; kept layers stay dense too.
        budget: one of `nbytes` (of the .sct file), `nnz`, `macs`, as recipes write them; None: half of the weights.
        int8: the layers run in integers as well (`quantize`), and the file of that is what must fit.
        observer, percentile: as of `quantize`.
    Returns:
        `report`: `budget` {kind, limit, value}, `layers` (as of `quantize`, and n_weights, nnz), `nnz`, `n_weights`,
        `macs` (of nonzeros), `outputs`, `n_examples`, `nbytes` {float32, onnx, sct}, `int8`.
    Raises:
        BudgetError: even one weight a layer is too much; `smallest` is what that costs. Others as `quantize`.
    Reference: Sun et al., ICLR 2024, arXiv:2306.11695, sec. 3; biases: Nagel et al., arXiv:1906.04721, sec. 4.2.
    """
    check_observer(observer, percentile)
    kind, limit = _limit(budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        net = opened(path_or_bytes, calib, keep, threads)
        ranking = _Ranking.of(net, kind, on_progress)
        limit = limit if limit is not None else (ranking.counted + 1) // 2

        def file(allowed: float) -> tuple[bytes, dict[str, str], bytes]:
            g = ranking.pruned(allowed)
            made = integers(net, g, observer, percentile, None) if int8 else None
            model = assembled(g) if made is None else made.model
            why = {x.result: "" for x in net.layers} | net.left if made is None else made.left
            return model, why, formats.pack(model)

        model, why, packed = _fitting(file, ranking, kind, limit, on_progress)
        outputs = differences(net.dense, InferenceSession(model, threads), net.data, on_progress)
    told = inspect(model)
    found, totals = {r["name"]: r for r in told["layers"]}, told["totals"]
    macs = totals["macs_nonzero"] // (net.data.batch or 1)
    rows = layer_rows(net, why)
    for row, x in zip(rows, net.layers, strict=True):
        row |= {key: found[x.node.name][key] if x.node.name in found else None for key in ("n_weights", "nnz")}
    value = {"nbytes": len(packed), "nnz": totals["nnz"], "macs": macs}[kind]
    report = {
        "budget": {"kind": kind, "limit": limit, "value": value},
        "layers": rows,
        "nnz": totals["nnz"],
        "n_weights": totals["n_weights"],
        "macs": macs,
        "outputs": outputs,
        "n_examples": net.data.n,
        "nbytes": {"float32": len(net.original), "onnx": len(model), "sct": len(packed)},
        "int8": int8,
    }
    return Pruned(model, packed, Shown(report, table.show_pruned))


def _limit(budget: Mapping[str, Any] | None) -> tuple[str, float | None]:
    if not budget:
        return "nnz", None
    if len(budget) > 1 or not set(budget) <= set(KINDS):
        raise UsageError(f"budget: {quoted(dict(budget))}; one of {', '.join(KINDS)} is possible for a file: nnz=20K")
    ((kind, given),) = budget.items()
    try:
        return kind, kinds.parse(kind, given)
    except ValueError as e:
        raise UsageError(str(e)) from None


@dataclass(frozen=True)
class _Ranking:
    """Every nonzero weight of the layers that are pruned, the most useful first.

    Attributes:
        order: places in the concatenated weights. `cost`: running sum of what they cost, in that order.
        fixed: cost of what is not pruned. `counted`: nonzeros of the network.
    """

    net: Opened
    chosen: list[Layer]
    seen: dict[str, Moments]
    order: NDArray[np.int64]
    cost: NDArray[np.float64]
    fixed: float
    counted: int

    @classmethod
    def of(cls, net: Opened, kind: str, report: Report) -> _Ranking:
        chosen = [x for x in net.layers if x.result not in net.left and len(net.graph.readers(x.weight)) == 1]
        if not chosen:
            raise UsageError(f"{net.subject}: no layer to prune; it has no Conv, Gemm or MatMul that may lose weights")
        seen = moments(net.graph, chosen, net.data, net.threads, report)
        rows = {r["name"]: r for r in inspect(assembled(net.graph))["layers"]}
        gains, costs, own = [], [], 0.0
        for x in chosen:
            w, row = net.graph.constants[x.weight], rows[x.node.name]
            each = row["macs"] / w.size / (net.data.batch or 1) if kind == "macs" else 1.0
            if not each:
                raise UsageError(f"{net.subject}: macs of {quoted(x.name)} are not known, for sizes of inputs are free")
            score = w.astype(np.float64) ** 2 * _features(net.graph, x, seen[x.node.input[0]].squares)
            gain = (score / (score.sum() or 1.0) / each).ravel()
            gain[w.ravel() != 0] += np.finfo(np.float64).tiny  # where nothing was ever read too
            gain[gain.argmax()] = np.inf  # one weight a layer stays: a layer of zeros computes nothing
            gains.append(gain)
            costs.append(np.full(w.size, each))
            own += each * np.count_nonzero(w)
        batch = net.data.batch or 1
        total = sum(r["macs_nonzero"] / batch if kind == "macs" else r["nnz"] for r in rows.values())
        gain, cost = np.concatenate(gains), np.concatenate(costs)
        order = np.argsort(-gain, kind="stable")[: int((gain > 0).sum())]
        counted = int(sum(r["nnz"] for r in rows.values()))
        return cls(net, chosen, seen, order, cost[order].cumsum(), max(total - own, 0.0), counted)

    @property
    def least(self) -> float:
        """The cost of one weight a layer."""
        return float(self.cost[len(self.chosen) - 1])

    def pruned(self, allowed: float) -> Canonical:
        """The graph with the first weights whose cost is within `allowed`."""
        g = self.net.graph
        kept = np.zeros(sum(g.constants[x.weight].size for x in self.chosen), bool)
        kept[self.order[: int(np.searchsorted(self.cost, allowed * (1 + 1e-12), "right"))]] = True
        made = replace(g, constants=dict(g.constants), shapes=dict(g.shapes), types=dict(g.types), nodes=list(g.nodes))
        at = 0
        for x in self.chosen:
            w = g.constants[x.weight]
            mask = kept[at : at + w.size].reshape(w.shape)
            at += w.size
            made.constants[x.weight] = np.where(mask, w, np.float32(0))
            if x.bias:
                moved = _removed(g, x, np.where(mask, np.float32(0), w), self.seen)
                bias = g.constants[x.bias]
                put(made, x.bias, (bias + moved.reshape(bias.shape)).astype(bias.dtype))
        return made


def _features(g: Canonical, x: Layer, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What belongs to each weight of a number per input feature, shaped to multiply the weight."""
    w = g.constants[x.weight]
    if x.node.op_type != "Conv":
        return values[None, :] if x.axis == 0 else values[:, None]
    groups = attributes(x.node).get("group", 1)
    rows = np.repeat(values.reshape(groups, -1), w.shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *[1] * (w.ndim - 2))


def _removed(g: Canonical, x: Layer, gone: Any, seen: Mapping[str, Moments]) -> NDArray[np.float64]:
    """The mean that each output loses with the weights `gone`."""
    mean = _features(g, x, seen[x.node.input[0]].mean)
    return np.asarray((gone * mean).sum(axis=tuple(a for a in range(gone.ndim) if a != x.axis)))


File = tuple[bytes, dict[str, str], bytes]


def _fitting(file: Callable[[float], File], ranking: _Ranking, kind: str, limit: float, report: Report) -> File:
    """The largest network within the limit."""
    if kind != "nbytes":
        allowed = limit - ranking.fixed
        if allowed < ranking.least:
            raise _impossible(kind, limit, ranking.least + ranking.fixed)
        return file(allowed)
    began, n = time.monotonic(), 0

    def tried(allowed: float) -> tuple[File, int]:
        nonlocal n
        n += 1
        if report:
            report(Progress("fit", n, n + 1, time.monotonic() - began))
        made = file(allowed)
        return made, len(made[2])

    high, low = float(ranking.cost[-1]), ranking.least
    best, above = tried(high)
    if above <= limit:
        return best
    best, below = tried(low)
    if below > limit:
        raise _impossible(kind, limit, below)
    while n < _TRIES and below < _NEAR * limit and high - low > 1:
        share = (0.995 * limit - below) / (above - below)
        at = low + (high - low) * min(max(share, 0.02), 0.98)
        made, size = tried(at)
        if size <= limit:
            best, below, low = made, size, at
        else:
            above, high = size, at
    return best


def _impossible(kind: str, limit: float, smallest: float) -> BudgetError:
    return BudgetError(
        f"budget: {kind} <= {limit:g} cannot be met; one weight in each layer and all that is not pruned take "
        f"{smallest:.12g} {kinds.unit(kind)}; raise the budget, or keep fewer layers",
        smallest,
        kind=kind,
    )
