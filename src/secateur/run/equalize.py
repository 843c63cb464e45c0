"""Cross-layer equalisation: before values are rounded, the channels of layers that feed each other get one range.

A channel that is s times as large where it is made and is divided by s where it is read changes nothing behind a ReLU.
With r1 the largest weight of its rows and r2 that of its columns in the readers, s = sqrt(r2 / r1) gives both the range
sqrt(r1 r2), so that no row and no column is small beside the one scale or the few values that its matrix has.

Reference: Nagel et al., ICCV 2019, arXiv:1906.04721, sec. 4.1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur import graph
from secateur.terms import feasible
from secateur.training.phases import write
from secateur.types import Member, Site, Solution, Weights

if TYPE_CHECKING:
    from secateur.recipe import Recipe
    from secateur.run.net import Net

STAGE = "equalize"
_SWEEPS = 40  # over all groups: a reader that produces the next group passes its change on
_SETTLED = 1e-3  # relative change of a scale below which a sweep is the last


def equalize(recipe: Recipe, net: Net) -> dict[str, Any] | None:
    """Equalise the channels of `net`, in place, and the record of it as a stage.

    Zeros stay zeros, so that supports hold; weights and biases that no term acts on are scaled too. None where the
    recipe does not ask for it, or no values are to be rounded.
    """
    if not recipe.equalize or not feasible.has_values(net.terms):
        return None
    began = time.perf_counter()
    groups = graph.scalable(net.traced)
    module, kept = _rescaled(net, groups)
    if kept:  # the others had shared their ranges with these
        groups = tuple(g for g in groups if g.name not in kept)
        module, _ = _rescaled(net, groups)
    terms, levels = feasible.support_only(net.terms, net.levels)
    found = Solution({n: p.detach() for n, p in module.named_parameters()}, levels)
    write(dict(net.module.named_parameters()), terms, found)
    names = [g.name for g in groups]
    rest = [g.name for g in net.traced.groups if g.name not in names]
    return {"name": STAGE, "seconds": time.perf_counter() - began, "equalized": names, "scale_kept": rest}


def note(stage: Mapping[str, Any]) -> str:
    """What the report says of it."""
    done, rest = stage["equalized"], stage["scale_kept"]
    text = f"before values were rounded, {len(done)} of {len(done) + len(rest)} groups of channels were equalised"
    why = "between the layers stands a norm, or a function that does not scale as ReLU does"
    return text + (f"; {', '.join(rest)} kept their scale: {why}" if rest else "")


def _rescaled(net: Net, groups: Sequence[Site]) -> tuple[nn.Module, list[str]]:
    return graph.rescaled(net.module, net.traced, scales(groups, net.weights))


def scales(groups: Sequence[Site], weights: Weights) -> dict[str, Tensor]:
    """Per group the s of every channel, float64, at which rows and columns have one range; 1 where one is all zero."""
    now = {k: w.double() for k, w in weights.items()}
    total = {g.name: torch.ones(g.shape[0], dtype=torch.float64) for g in groups}
    for _ in range(_SWEEPS):
        moved = 0.0
        for g in groups:
            made = _ranges(g.members, now, g.shape[0])
            read = _ranges([m for m in g.removes if m.param in g.readers], now, g.shape[0])
            s = (read / made).sqrt()
            s = s.where(s.isfinite() & (s > 0), 1.0)
            now |= graph.scaled(g, now, s)
            total[g.name] = total[g.name] * s.to(total[g.name].device)
            moved = max(moved, float((s - 1).abs().max()))
        if moved < _SETTLED:
            break
    return total


def _ranges(members: Sequence[Member], weights: Weights, n: int) -> Tensor:
    """The largest |w| of each of `n` channels over these tensors."""
    found = []
    for m in members:
        w = weights[m.param].movedim(m.axis, 0)
        found.append((w if m.index is None else w[list(m.index)]).abs().reshape(n, -1).amax(dim=1))
    return torch.stack(found).amax(dim=0)
