"""Channels at another scale, made larger where they are produced and smaller where they are read: the same network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from secateur.graph.surgery import Surgery
from secateur.graph.tracing import Traced
from secateur.graph.trial import in_turn
from secateur.types import Site, Weights


def scalable(traced: Traced) -> tuple[Site, ...]:
    """The groups of channels whose scale their weights set: no norm stands behind the producers, nothing is frozen."""
    ops = {s.name: s.op for s in traced.sites if s.name not in traced.program.frozen}

    def free(group: Site) -> bool:
        beside = [ops.get(m.param) for m in group.removes if m.param not in group.readers]
        return bool(group.readers) and set(beside) <= {"bias"} and {m.param for m in group.members} <= ops.keys()

    return tuple(g for g in traced.groups if free(g) and set(g.readers) <= ops.keys())


def scaled(group: Site, weights: Weights, scale: Tensor) -> dict[str, Tensor]:
    """The parameters of a group when its channels are `scale` times as large: rows and biases times it, the columns of
    the readers divided by it.

    Args:
        scale: positive, float64 [channels].
    Returns:
        New float64 tensors, of the parameters that change.
    """
    found: dict[str, Tensor] = {}
    for m in (*group.members, *group.removes):
        w = found.get(m.param, weights[m.param].double())
        reads = m in group.removes and m.param in group.readers
        factor = w.new_ones(w.shape[m.axis])
        index = slice(None) if m.index is None else list(m.index)
        factor[index] = (1 / scale if reads else scale).repeat_interleave(m.repeat)
        found[m.param] = w * factor.view([-1 if a == m.axis else 1 for a in range(w.dim())])
    return found


def rescaled(model: nn.Module, traced: Traced, scales: Mapping[str, Tensor]) -> tuple[nn.Module, list[str]]:
    """The same network with the channels of some groups at another scale.

    Exact where what lies between is positively homogeneous (ReLU, pools, zero padding). Group after group, the result
    is run beside the model in double precision; one that fails keeps its values.

    Args:
        model: of the class that was traced; not changed.
        scales: name of a group of `scalable` -> as of `scaled`.
    Returns:
        A module with the model's shapes, and the names of the groups whose scale was kept.
    """

    def change(group: Site, scale: Tensor, now: Weights) -> tuple[dict[str, Tensor], Surgery]:
        return {**now, **scaled(group, now, scale)}, {"version": 1, "edits": [], "biases": {}, "pads": []}

    found = {g.name: partial(change, g, scales[g.name]) for g in scalable(traced) if g.name in scales}
    return in_turn(model, traced.program, found)
