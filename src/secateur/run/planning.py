"""What a budget would buy, before any training: levels, predicted size, and how sensitive each layer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.budget import kinds
from secateur.budget.allocate import Plan, Row
from secateur.budget.menus import packed
from secateur.budget.purse import Purse
from secateur.contracts import Term
from secateur.errors import BudgetError
from secateur.graph import counts
from secateur.graph.counts import channels_note, left_out
from secateur.graph.factors import names_of
from secateur.report import words
from secateur.run import activations, search, whole
from secateur.run.job import Job
from secateur.run.net import Net
from secateur.terms import feasible
from secateur.terms.feasible import Importance
from secateur.terms.live import ROUGHLY
from secateur.types import Inventory, Level, Limit, Packing, Stage, Weights

_LEAST_ERROR = 0.02  # training moves the entropy of positions and values by about that much
_MANY = 1_000_000  # weights: of a larger net the bytes that no limit counts are not coded one by one
_ALIVE = 0.9  # fewer of the kept weights that can still matter: the projected net is no picture of the trained one


def plan(job: Job, measured: bool = True) -> dict[str, Any]:
    """The table of `secateur plan`: per layer its level and what pruning this layer alone costs in accuracy.

    The size is that of the file that one-shot projection gives, written in memory; `nbytes_error` is the relative gap
    between that file and the allocator's estimate, at least 2 %. Where the projection cuts layers off, so that most of
    what it keeps is dead, no solver would end there: the estimates are the prediction then, and a note says so. Rows
    and `rest` (graph, biases, what no rule names) add up to the totals.

    Args:
        measured: False leaves the metrics out (of weights that are not trained they say nothing).
    Raises:
        BudgetError: the budget cannot be met, with the smallest reachable size.
    """
    net = job.start
    limits, notes = _limits(job)
    grids = activations.planned(job, net)
    h = job.importance(net, "plan")
    weights = {k: w.clone() for k, w in net.weights.items()}
    purse, limits, notes = _probed(job, net, weights, h, limits, notes)
    found, near = purse.answer or _answered(net, purse, weights, h)
    if feasible.has_values(net.terms):
        near = net.member(found.levels, {**weights, **near})
    small = net.smaller(near, "always" if measured else "of doubts")
    estimated = _estimated(net, found.rows, round(purse.fixed.get("nbytes", job.unconstrained_nbytes)), purse.fixed)
    totals = projected = _projected(job, net, small)
    error = max(_LEAST_ERROR, abs(estimated.total["nbytes"] / projected.total["nbytes"] - 1))
    plain = all(t.site.op != "channels" for t in net.terms)
    if plain and projected.total["nnz"] < _ALIVE * estimated.total["nnz"]:
        totals, error = estimated, 1 - projected.total["nbytes"] / max(estimated.total["nbytes"], 1)
        notes.append(
            "estimates: projecting these weights at once would cut layers off (a file of "
            f"{words.nbytes(projected.total['nbytes'])}), which training avoids; trained weights tell more"
        )
    dense_metric = job.evaluate(job.dense) if measured else None
    layers, stays = [], whole.kept(net.module, net.traced, net.terms)
    for term, row in zip(net.terms, found.rows, strict=True):
        metric = _alone(job, weights, feasible.project([term], found.levels, weights, h)) if measured else None
        drop = None if metric is None or dense_metric is None else _drop(job, dense_metric, metric)
        runs = {"runs": words.ZEROED} if term.site.name in stays else {}
        layers.append(
            _row(term, row) | runs | totals.layers[row.name] | {"one_shot_metric": metric, "one_shot_drop": drop}
        )
    total = totals.total
    return {
        "layers": layers,
        "rest": {k: total[k] - sum(row[k] for row in layers) for k in total},
        "activations": [t.site.name for t in grids],
        "left_out": left_out(net.traced),
        **total,
        "nbytes_error": error,
        "dense_nbytes": len(job.dense_files.onnx),
        "dense_metric": dense_metric,
        "one_shot_metric": job.evaluate(small) if measured else None,
        "budget": (budget := _budget(job, limits, total)),
        "binds": _binding(budget),
        "notes": [
            *notes,
            *whole.notes(stays),
            *([activations.note(grids)] if grids else []),
            *filter(None, [channels_note(net.terms, net.traced)]),
        ],
    }


def _probed(
    job: Job, net: Net, weights: Weights, h: Importance, limits: Sequence[Limit], notes: list[str]
) -> tuple[Purse, Sequence[Limit], list[str]]:
    """The purse, its prices found out; what it is planned for where a search would begin below what can be had."""
    purse = job.purse(net, limits)
    purse.fixed = _untouched(net, limits)
    try:
        purse.probe(weights, h, as_priced=True)
    except BudgetError as e:
        if e.smallest is None or kinds.metered(job.limits):
            raise
        limits = [Limit(limits[0].kind, e.smallest)]  # the search finds that out
        notes = [f"{notes[0]}, or the smallest there is, {words.amount(limits[0].kind, e.smallest)}"]
        purse = job.purse(net, limits)
        purse.probe(weights, h, as_priced=True)
    return purse, limits, notes


def _answered(net: Net, purse: Purse, weights: Weights, h: Importance) -> tuple[Plan, Weights]:
    """What the budget buys by the last booking, where no network that was priced is the answer; its supports."""
    found = purse.plan(weights, h)
    return found, net.supported(found.levels, weights, h, ROUGHLY)


def _untouched(net: Net, limits: Sequence[Limit]) -> dict[str, float]:
    """What is fixed as far as counting tells it before anything is projected: one projection less to find it out.

    Not where channels are removed, whose readers lose weights with them.
    """
    plain = all(t.site.op != "channels" for t in net.terms)
    known = [x.kind for x in limits if plain and not kinds.meter(x.kind).in_file and not kinds.meter(x.kind).by_place]
    return kinds.measured(_beside(net, 0), known)


def _beside(net: Net, nbytes: int) -> Inventory:
    """The weights that no term acts on, and what surrounds them; `nbytes` of the file is theirs."""
    touched = {m.param for term in net.terms for m in term.site.members}
    others = tuple(w for w in counts.weights(net.module, net.traced) if w.name not in touched)
    return net.with_table(Inventory(others, lambda: nbytes))


def _row(term: Term, row: Any) -> dict[str, Any]:
    return {
        "name": row.name,
        "shape": list(row.shape),
        "constraint": term.constraint.name,
        "level": _json(row.level),
        "density": row.nnz / max(row.shape[0] * row.shape[1], 1),
        "bits": row.bits,
        "runs": words.runs(_support(term, row.shape, row.level)),
    }


def _support(term: Term, shape: tuple[int, int], level: Level) -> tuple[Packing, ...]:
    """What is stored of a site but for the values it takes."""
    n = shape[0] * shape[1]
    kept = None if level is None else term.constraint.before(Stage.VALUES, level)
    return (Packing(n, n),) if kept is None else packed(kept[0], shape, kept[1])


def _limits(job: Job) -> tuple[Sequence[Limit], list[str]]:
    """The limits that can be planned, and what is said about the accuracy drop, which training decides."""
    metered = kinds.metered(job.limits)
    if job.drop_limit is None:
        return metered, []
    drop = words.amount(kinds.DROP, job.drop_limit)
    if metered or all(t.given for t in job.start.terms):
        return metered, [f"{kinds.DROP} <= {drop}: judged after the training; the other limits are planned"]
    first = search.first_try(job)
    return [first], [
        f"{kinds.DROP} <= {drop} alone: compress looks for the smallest {first.kind} that keeps it; planned here is "
        f"where it begins, {words.amount(first.kind, first.value)}"
    ]


def _budget(job: Job, limits: Sequence[Limit], total: Mapping[str, float]) -> list[dict[str, Any]]:
    """Every limit that was asked for, and what is predicted where anything can be."""
    planned = {x.kind for x in limits}
    return [
        {"name": x.kind, "asked": x.value, "predicted": float(total[x.kind]) if x.kind in planned else None}
        for x in job.limits
    ]


def _binding(budget: Sequence[Mapping[str, Any]]) -> str | None:
    """The planned limit of which least is left."""
    planned = [row for row in budget if row["predicted"] is not None]
    return max(planned, key=lambda row: row["predicted"] / row["asked"])["name"] if planned else None


@dataclass(frozen=True)
class _Counts:
    """What each term's layer costs, and the whole net, by every kind of size."""

    layers: dict[str, dict[str, float]]
    total: dict[str, float]


def _estimated(net: Net, rows: Sequence[Row], fixed_nbytes: int, fixed: Mapping[str, float]) -> _Counts:
    """As the allocator expects them; what no term acts on stays as it is."""
    layers: dict[str, dict[str, float]] = {r.name: {k: _whole(k, r.costs[k]) for k in net.kinds} for r in rows}
    rest = kinds.measured(_beside(net, fixed_nbytes), net.kinds)
    rest |= {k: fixed[k] for k in fixed if kinds.meter(k).on_machine}  # what no level changes is more than the table's
    return _Counts(layers, {k: sum(row[k] for row in layers.values()) + rest[k] for k in rest})


def _projected(job: Job, net: Net, small: nn.Module) -> _Counts:
    """As they are in the network that projection gives and in its file. A weight is counted once, in its own row."""
    n_values = sum(p.numel() for p in small.parameters())
    sections = job.template.sections(small, net.terms, roughly=not job.counts_bytes and n_values > _MANY)
    every = {w.name: w for w in counts.weights(small, net.traced)}
    own = {k for t in net.terms if t.site.op != "channels" for k in names_of(t.site.name, every)}
    layers, seen = {}, set[str]()
    for t in net.terms:
        params = {k for m in t.site.members for k in names_of(m.param, every)} - seen
        params -= own if t.site.op == "channels" else set()
        seen |= params
        nbytes = sum(sections.get(p, 0) for p in params)
        part = Inventory(tuple(every[p] for p in sorted(params)), lambda n=nbytes: n)  # type: ignore[misc]
        layers[t.site.name] = kinds.measured(net.with_table(part, rest=False), net.kinds)
    total = sum(sections.values())
    return _Counts(layers, net.predicted(small, lambda: total, net.kinds, lambda: job.template.file(small)))


def _whole(kind: str, cost: float) -> float:
    """Rounded to what is told of that kind."""
    return round(cost) if kinds.meter(kind).step == 1 else round(cost, 6)


def _drop(job: Job, dense: float, metric: float) -> float:
    return dense - metric if job.setting.higher_is_better else metric - dense


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
