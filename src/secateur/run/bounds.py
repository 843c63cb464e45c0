"""Limits that no training can meet, refused before one begins: what the numbers of weights and the graph cost.

What a budget can buy beyond that depends on the weights, and is found out when they are final (`spending`).
"""

from __future__ import annotations

from secateur import formats
from secateur.errors import BudgetError
from secateur.run.job import Job

_COUNTED = ("nnz", "macs")  # which weights are kept is all that they depend on, not what training makes of them
_GRAPH = 0.9  # shapes in the graph get shorter where channels go


def refuse(job: Job) -> None:
    """Raise BudgetError when a limit is below what every answer costs; the job is looked at, not changed.

    Args:
        job: with the dense net as it is, trained or not.
    """
    net = job.start
    counted = [x for x in job.limits if x.kind in _COUNTED]
    if counted and any(not t.given for t in net.terms):
        weights = {k: w.clone() for k, w in net.weights.items()}
        job.purse(net, counted).probe(weights, {})
    limit = next((x.value for x in job.limits if x.kind == "nbytes"), None)
    if limit is None:
        return
    graph = sum(s.nbytes for s in formats.sections(job.dense_files.sct) if s.kind != "tensor")
    if limit < _GRAPH * graph:
        raise BudgetError(
            f"budget: nbytes <= {limit:g} cannot be met: the graph alone (operators, names, shapes) takes about "
            f"{graph} bytes, whatever the weights are; raise the budget",
            graph,
            kind="nbytes",
        )
