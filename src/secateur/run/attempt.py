"""One way from a net to a written net within the limits: approach, fit, cut, polish, equalize, snap, write, trim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secateur.errors import CheckError
from secateur.graph.copying import copied
from secateur.run import activations, prices, problem, stages
from secateur.run.cut import cut, narrow
from secateur.run.equalize import equalize
from secateur.run.net import Candidate, Net
from secateur.terms import feasible
from secateur.training.loop import load_weights
from secateur.types import Stage

if TYPE_CHECKING:
    from torch import nn

    from secateur.budget.purse import Purse
    from secateur.contracts import Solver
    from secateur.export.written import Written
    from secateur.run.job import Job
    from secateur.types import Limit, Weights

_TRIM_SHARE = 0.1  # of the epochs, for each re-training after a last trim


def attempt(job: Job, name: str, solver: Solver, start: Net, limits: Sequence[Limit], epochs: float) -> Candidate:
    """One way from `start` to a written net that meets the metered `limits`.

    Args:
        name: prefix of the stages' names in the ledger.
        start: not changed.
    Raises:
        BudgetError: the limits cannot be met; `smallest` is the nearest reachable size.
    """
    job, log_from = job.paced(limits, epochs), len(job.stages)
    net = replace(start, module=copied(start.module), surgery=list(start.surgery))
    purse = job.purse(net, limits, f"{name}.prices")
    plan = problem.phases(job.recipe, solver, net.terms)
    job.pulse(f"{name}.prices")
    h = job.importance(net, name)
    purse.set_out(net.weights)
    purse.probe(net.weights, h)
    if plan.approach > 0 or solver.instant:
        net, purse = _legs(job, name, solver, net, purse, epochs * plan.approach)
    raw = _fit(job, name, net, purse)
    net = cut(net, job.example_inputs)
    if plan.polish > 0:
        stages.held(job, f"{name}.polish", net, epochs * plan.polish)
    if equalized := equalize(job.recipe, net):
        job.stages.append(equalized)
    net = activations.quantized(job, name, net)
    if feasible.has_values(net.terms):
        stages.snap(job, f"{name}.snap", net, epochs * plan.snap)
    net, files, readings = _finish(job, name, net, purse.limits, _TRIM_SHARE * epochs)
    purse.check({**net.costs(files), **{kind: r["value"] for kind, r in readings.items()}})
    metric = job.setting.ledger.fact(f"{name}.metric", lambda: job.evaluate(files.module))
    return Candidate(name, net, files, metric, raw, job.stages[log_from:], readings=readings)


def _legs(job: Job, name: str, solver: Solver, net: Net, purse: Purse, epochs: float) -> tuple[Net, Purse]:
    """The approach, leg by leg; between two legs dead units are removed, so that later legs run faster."""
    # A given rank is one of the layer as it is now.
    ranks = any(t.given and t.constraint.stage == Stage.FORM for t in net.terms)
    legs = solver.legs() if not ranks else ((solver, 1.0, 0.0, 1.0),)
    for i, (leg, share, low, high) in enumerate(legs):
        purse.way.low, purse.way.high = low, high
        label = f"{name}.approach" if len(legs) == 1 else f"{name}.approach{i + 1}"
        stages.approach(job, label, leg, net, purse, epochs * share)
        if i < len(legs) - 1:
            job.remeasure(net.module)
            small = narrow(net, job.example_inputs, job.terms_of)
            purse = job.purse(small, purse.limits, "narrow.prices").going_on(purse, net.weights)
            net = small
    purse.way.low, purse.way.high = 0.0, 1.0
    return net, purse


def _fit(job: Job, name: str, net: Net, purse: Purse) -> dict[str, Any]:
    """Final levels from today's weights; the support becomes final. Answers what one-shot gives there, untrained."""
    h = job.importance(net, f"{name}.fit")
    found = prices.fit(net, purse, h, job.template, job.told(f"{name}.fit"))
    job.remeasure(net.module)  # a cut folds constants by these statistics
    job.pulse(f"{name}.fit", last=True)
    metric = job.setting.ledger.fact(f"{name}.raw", lambda: job.evaluate(_written_now(job, net, found.near)))
    return {"metric": metric, **found.sizes}


def _written_now(job: Job, net: Net, weights: Weights) -> nn.Module:
    """The network that would be written, before any training, in evaluation mode."""
    full = net.member(net.levels, {**net.weights, **weights})
    rounded = copied(net.module)
    load_weights(rounded, full)
    job.remeasure(rounded)
    return replace(net, module=rounded).smaller(full)


def _finish(
    job: Job, name: str, net: Net, limits: Sequence[Limit], epochs: float
) -> tuple[Net, Written, prices.Readings]:
    """Write the net; while it misses a limit that training moves, tighten a little and retrain for `epochs`."""

    def repair(net: Net, purse: Purse, trim: int) -> Net:
        _fit(job, f"{name}.trim{trim}", net, purse)
        net = cut(net, job.example_inputs)
        if feasible.has_values(net.terms):
            stages.snap(job, f"{name}.trim{trim}.snap", net, epochs)
        else:
            stages.held(job, f"{name}.trim{trim}.polish", net, epochs)
        return net

    def reading(net: Net, files: Written, kind: str, trim: int) -> dict[str, Any]:
        job.pulse(f"{name}.clock")
        # Whether a trim follows hangs on it: a resumed run must go the same way.
        return job.setting.ledger.fact(f"{name}.{kind}{trim}", lambda: net.reading(files, kind))  # type: ignore[no-any-return]

    return prices.trimmed(net, limits, lambda net, trim: _write(job, name, net, trim, epochs), repair, reading)


def _write(job: Job, name: str, net: Net, trim: int, epochs: float) -> tuple[Net, Written]:
    """The files, whose weights are in the sets that were asked for.

    A constant that was folded into a bias moves it off its values: it is settled by a short snap.
    """
    outside: list[str] = []
    for settled in range(prices.TRIMS):
        if settled:
            net = cut(net, job.example_inputs)
            stages.snap(job, f"{name}.settle{trim}.{settled}", net, epochs)
        moved = prices.not_members(net)
        assert not moved, f"not members after {name}: {moved}"
        job.pulse(f"{name}.write", last=True)
        files = net.write(job.example_inputs)
        outside = job.outside(net, files)
        if not outside:
            return net, files
    raise CheckError(
        f"the written weights are not in the sets that were asked for: {'; '.join(outside[:4])}; "
        "please report this model"
    )
