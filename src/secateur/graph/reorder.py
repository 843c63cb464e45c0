"""Channels in another order, in every tensor that they sit in: the network computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from secateur.graph.surgery import Surgery
from secateur.graph.tracing import Traced
from secateur.graph.trial import in_turn
from secateur.types import Member, Site, Weights


def reorder(model: nn.Module, traced: Traced, orders: Mapping[str, Sequence[int]]) -> tuple[nn.Module, list[str]]:
    """The same network with the channels of some groups in another order.

    Producers, norms with their statistics, biases and readers change together, so that nothing is left to do at run
    time. A group whose channels the code tells apart (by position) keeps its order: the result is run beside the
    model, in double precision.

    Args:
        model: of the class that was traced; not changed.
        orders: name of a `channels` group -> which of its rows stands where, a permutation of them.
    Returns:
        A module with the model's shapes, and the names of the groups whose order was kept.
    """
    sizes = {key: len(classes) for key, classes in traced.coupling.axes.items()}
    groups = {g.name: g for g in traced.coupling.groups}

    def change(group: Site, order: Sequence[int], now: Weights) -> tuple[dict[str, Tensor], Surgery]:
        return dict(now), _surgery(group, order, sizes)

    return in_turn(model, traced.program, {n: partial(change, groups[n], order) for n, order in orders.items()})


def _surgery(group: Site, order: Sequence[int], sizes: Mapping[tuple[str, int], int]) -> Surgery:
    """As the record of a removal in which all stay, elsewhere."""
    edits = []
    for m in (*group.members, *group.removes):
        size = sizes[m.param, m.axis]
        edits.append({"tensor": m.param, "axis": m.axis, "size": size, "keep": placed(m, order, size)})
    return {"version": 1, "edits": edits, "biases": {}, "pads": []}


def placed(m: Member, order: Sequence[int], size: int) -> list[int]:
    """Which of the axis' entries stands where."""
    index, keep = range(size) if m.index is None else m.index, list(range(size))
    for row, old in enumerate(order):
        for i in range(m.repeat):
            keep[index[row * m.repeat + i]] = index[old * m.repeat + i]
    return keep
