"""The levels of a net: tighter supports inside the finished ones, found one after the other and trained together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from secateur import formats
from secateur.budget import kinds
from secateur.errors import BudgetError, CheckError
from secateur.export import membership, norms, written
from secateur.export.membership import Asked
from secateur.export.written import Written
from secateur.graph.copying import copied
from secateur.run import prices, stages
from secateur.run.cut import cut
from secateur.run.net import Candidate, Net, Point
from secateur.terms.frozen import Frozen
from secateur.types import Level, Limit

if TYPE_CHECKING:
    from secateur.run.job import Job
    from secateur.run.nesting import Chain


@dataclass(frozen=True)
class _Rung:
    """One level on the way: its terms, their levels, the supports as masks, and what it may cost."""

    net: Net
    frozen: Frozen
    limits: tuple[Limit, ...]

    @property
    def levels(self) -> dict[str, Level]:
        return self.net.levels


def chained(job: Job, best: Candidate) -> Candidate:
    """The answer with its tighter levels, where the recipe asks for them; else as it came.

    Level after level is projected out of the one before it, under its share of the limits, and then trained together
    with all looser ones: every step draws the next of them (`training/alternate.py`), for as many epochs each as the
    polish of the run. What is kept is the point whose levels are best on average. Batch-norm statistics are measured
    for each level alone, in the training and in the end.

    Raises:
        BudgetError: a share of a limit that cannot be met. CheckError: a written level is outside its sets.
    """
    chain = job.chain
    if chain is None:
        return best
    net = cut(best.net, job.example_inputs)
    rungs = [_Rung(net, _frozen(net), kinds.metered(job.limits))]
    epochs = job.recipe.epochs * job.recipe.polish
    for i in range(1, 1 + len(chain.shares)):
        name = f"{best.name}.tighter{i - 1}"
        rungs.append(_tighter(job, chain, net, rungs, name))
        _train(job, f"{name}.levels", net, [r.frozen for r in rungs], rungs[-1].limits, epochs * len(rungs))
    files, points = [], []
    for i, rung in enumerate(rungs):
        job.pulse(f"{best.name}.write", last=i == len(rungs) - 1)
        files.append(_written(job, _at(job, net.module, rung.frozen), net))
        module = files[-1].module
        metric = job.setting.ledger.fact(f"{best.name}.level{i}.metric", partial(job.evaluate, module))
        points.append(Point(i, rung.net, rung.levels, rung.limits, metric))
    every = replace(files[0], packed=partial(formats.pack_levels, [f.onnx for f in files]), levels=tuple(files[1:]))
    answer = replace(best, net=net, files=every, metric=points[0].metric)
    answer.points = tuple(points)
    _check(job, answer)
    return answer


def _tighter(job: Job, chain: Chain, net: Net, rungs: Sequence[_Rung], name: str) -> _Rung:
    """The next level, projected from the weights of the one before."""
    i = len(rungs)
    terms = tuple(chain.at(t, net.levels[t.site.name], i) for t in net.terms)
    inner = replace(net, module=_masked(net.module, rungs[-1].frozen), terms=terms, levels={})
    limits = tuple(Limit(x.kind, x.value * chain.shares[i - 1]) for x in rungs[0].limits)
    job.remeasure(inner.module)
    purse = job.purse(inner, limits, f"{name}.prices")
    h = job.importance(inner, name)
    try:
        purse.set_out(inner.weights)
        purse.probe(inner.weights, h)
        purse.check(prices.fit(inner, purse, h, job.template, job.told(f"{name}.fit")).sizes)
    except BudgetError as e:
        raise BudgetError(
            f"level {i}, {chain.shares[i - 1]:g} of the budget: {e}", e.smallest, e.site, e.kind
        ) from None
    return _Rung(inner, _frozen(inner), limits)


def _frozen(net: Net) -> Frozen:
    return Frozen(net.terms, net.levels, net.weights, net.companions)


def _masked(module: nn.Module, frozen: Frozen) -> nn.Module:
    """A copy with the weights of a level."""
    own = copied(module)
    frozen.mask_({k: p.detach() for k, p in own.named_parameters()})
    return own


def _at(job: Job, module: nn.Module, frozen: Frozen) -> nn.Module:
    """A copy that is a level: its weights, and batch-norm statistics measured on them."""
    own = _masked(module, frozen)
    job.remeasure(own)
    return own.eval()


def _train(job: Job, name: str, net: Net, rungs: Sequence[Frozen], limits: Sequence[Limit], epochs: float) -> None:
    """Train the levels so far together, as fast as the limits of the newest want it; a point is judged by the mean of
    their metrics.
    """

    def mean(module: nn.Module) -> float:
        return sum(job.evaluate(_at(job, module, rung)) for rung in rungs) / len(rungs)

    own = copy(job.paced(limits, epochs))
    own.setting = replace(job.setting, evaluate=mean)
    stages.alternate(own, name, net, rungs, epochs)


def _written(job: Job, module: nn.Module, net: Net) -> Written:
    """The files of a level. Nothing is cut: all levels are one graph."""
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    onnx = norms.merged(written.exported_bytes(module, job.example_inputs), written.constrained(net.terms))
    return Written(module, onnx, partial(formats.pack, onnx), net.surgery)


def _check(job: Job, answer: Candidate) -> None:
    """Every written level is in its sets, inside the one before, with its values, within its limits."""
    outside = job.outside(answer.net, answer.files)
    looser: dict[str, Tensor] = {}
    for point, files in zip(answer.points, answer.each_level, strict=True):
        asked = Asked(point.net.terms, point.levels, len(answer.net.surgery))
        outside += membership.outside(asked, files.onnx, files.surgery, files.arrays)
        params = dict(files.module.named_parameters())
        now = {k: params[k].detach() for k in written.constrained(answer.net.terms)}
        strays = [k for k, w in now.items() if k in looser and _strays(w, looser[k])]
        outside += [f"{k}: level {point.at} is not inside the one before" for k in sorted(strays)]
        looser = now
        for limit in point.limits:
            cost = point.costs(files)[limit.kind]
            if cost > limit.value + 1e-9:
                raise CheckError(f"level {point.at}: {limit.kind} is {cost:g}, {limit.value:g} is allowed")
    if outside:
        raise CheckError(f"the written levels are not what was asked for: {'; '.join(outside[:4])}")


def _strays(w: Tensor, looser: Tensor) -> bool:
    return bool(((w != 0) & (w != looser)).any())
