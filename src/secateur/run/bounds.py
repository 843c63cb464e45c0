"""Limits that no training can meet, refused before one begins: what the numbers of weights and the graph cost.

What a budget can buy beyond that depends on the weights, and is found out when they are final (`Purse`).
"""

from __future__ import annotations

from secateur import formats
from secateur.budget import kinds
from secateur.errors import BudgetError
from secateur.run.job import Job
from secateur.types import Inventory

_GRAPH = 0.9  # shapes in the graph get shorter where channels go


def refuse(job: Job) -> None:
    """Raise BudgetError when a limit is below what every answer costs; the job is looked at, not changed.

    Args:
        job: with the dense net as it is, trained or not.
    """
    weights_alone(job)
    graph_alone(job)


def weights_alone(job: Job) -> None:
    """By what only the numbers of weights decide. A plan of the very same weights finds that out by itself."""
    net = job.start
    limits = kinds.metered(job.limits)
    # Which weights are kept is all that these depend on, not what training makes of them.
    counted = [x for x in limits if not kinds.meter(x.kind).margin or kinds.meter(x.kind).on_machine]
    if counted and any(not t.given for t in net.terms):
        weights = {k: w.clone() for k, w in net.weights.items()}
        job.purse(net, counted).probe(weights, {})


def graph_alone(job: Job) -> None:
    """By what the graph takes, whatever the weights are."""
    bare = Inventory((), lambda: _graph_nbytes(job))
    for limit in (x for x in kinds.metered(job.limits) if not kinds.meter(x.kind).on_machine):
        least = kinds.meter(limit.kind).measure(bare)
        if limit.value < _GRAPH * least:
            raise BudgetError(
                f"budget: {limit.kind} <= {limit.value:g} cannot be met: the graph alone (operators, names, shapes) "
                f"takes about {least:.12g} {kinds.meter(limit.kind).unit}, whatever the weights are; raise the budget",
                least,
                kind=limit.kind,
            )


def _graph_nbytes(job: Job) -> int:
    return sum(s.nbytes for s in formats.sections(job.dense_files.sct) if s.kind != "tensor")
