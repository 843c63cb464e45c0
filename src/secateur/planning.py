"""What a budget would buy, before any training: levels, predicted size, and how sensitive each layer is."""

from __future__ import annotations

from typing import Any

import torch

from secateur import feasible, written
from secateur.contracts import Constraint
from secateur.job import Job, left_out, sizes
from secateur.types import Weights

_LEAST_ERROR = 0.02  # training moves the entropy of positions and values by about that much


def plan(job: Job) -> dict[str, Any]:
    """The table of `secateur plan`: per layer its level and what pruning this layer alone costs in accuracy.

    The size is that of the file that one-shot projection gives, written in memory; `nbytes_error` is the relative gap
    between that file and the allocator's estimate, at least 2 %.

    Raises:
        BudgetError: the budget cannot be met, with the smallest reachable size.
    """
    net = job.start
    purse = job.purse(net, [x for x in job.limits if x.kind != "accuracy_drop"])
    h = job.importance(net, "plan")
    weights = {k: w.clone() for k, w in net.weights.items()}
    purse.probe(weights, h)
    found = purse.plan(weights, h)
    near = job.project(net, found.levels, weights, h)
    full = {**weights, **near}
    full |= feasible.project(net.terms, found.levels, full)
    small = written.smaller(net.module, net.traced, full, net.may_cut)[0]
    nbytes = job.template.nbytes(small, net.terms)
    reached = sizes(small, net.traced, nbytes)
    # The rest of the file (graph, biases) as the dense net has it, when no size limit made it be measured.
    estimate = sum(r.estimate for r in found.rows) + purse.fixed.get("nbytes", float(job.unconstrained_nbytes))
    dense_metric = job.evaluate(job.dense)
    layers = []
    positions = {t.site.name: t.site.positions for t in net.terms}
    for term, row in zip(net.terms, found.rows, strict=True):
        metric = _alone(job, weights, feasible.project([term], found.levels, weights, h))
        layers.append(
            {
                "name": row.name,
                "shape": list(row.shape),
                "constraint": name_of(term.constraint),
                "level": _json(row.level),
                "nnz": row.nnz,
                "density": row.nnz / max(row.shape[0] * row.shape[1], 1),
                "bits": row.bits,
                "nbytes": round(row.estimate),
                "macs": row.nnz * positions[row.name] if term.site.op not in ("bias", "norm", "channels") else 0,
                "one_shot_metric": metric,
                "one_shot_drop": dense_metric - metric if job.setting.higher_is_better else metric - dense_metric,
            }
        )
    return {
        "layers": layers,
        "left_out": left_out(net.traced),
        "nbytes": nbytes,
        "nbytes_error": max(_LEAST_ERROR, abs(estimate - nbytes) / nbytes),
        "dense_nbytes": len(job.dense_files.onnx),
        "nnz": reached["nnz"],
        "macs": reached["macs"],
        "dense_metric": dense_metric,
        "one_shot_metric": job.evaluate(small),
        "budget": [{"name": x.kind, "asked": x.value, "predicted": float(reached[x.kind])} for x in purse.limits],
    }


def name_of(constraint: Constraint) -> str:
    """The name in recipes; joint sets as `topk + codebook`."""
    parts = getattr(constraint, "parts", None)
    if parts:
        return " + ".join(name_of(p) for p in parts)
    return type(constraint).__module__.rpartition(".")[2]


def _alone(job: Job, weights: Weights, near: Weights) -> float:
    """The metric with one layer projected and the rest dense; the net is left as it was."""
    params = dict(job.start.module.named_parameters())
    with torch.no_grad():
        for name, value in near.items():
            params[name].copy_(value)
    try:
        return job.evaluate(job.start.module)
    finally:
        with torch.no_grad():
            for name in near:
                params[name].copy_(weights[name])


def _json(level: Any) -> Any:
    return list(level) if isinstance(level, tuple) else level
