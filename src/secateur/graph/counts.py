"""What a network holds and what it multiplies, weight by weight: the one count behind budget, report and `verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from secateur.graph import Traced

_BESIDE = ("bias", "norm", "vector")  # neither weights nor multiply-adds, by the custom of the field


@dataclass(frozen=True)
class Weight:
    """One parameter of a network.

    Attributes:
        op: the site's; of a parameter that is none `vector` (one axis) or `other`.
        nnz: nonzero values.
        positions: how often each value is multiplied per example.
        left_out: why no constraint can act on it, None where one can.
        value: the parameter, detached.
    """

    name: str
    op: str
    nnz: int
    positions: int
    left_out: str | None
    value: Tensor

    @property
    def counted(self) -> bool:
        """Is it a weight? Biases and norms are not."""
        return self.op not in _BESIDE

    @property
    def macs(self) -> int:
        """Multiply-adds per example by its nonzero values."""
        return self.nnz * self.positions if self.counted else 0


def weights(module: nn.Module, traced: Traced) -> Iterator[Weight]:
    """Every parameter of `module` once: sites in the order of use, weights on which nothing can act, then the rest.

    Args:
        traced: of this module, or of what it was before channels were removed.
    """
    state = {k: p.detach() for k, p in module.named_parameters()}
    why = {spare.name: spare for spare in traced.left_out}
    rows = {s.name: (s.op, s.positions) for s in traced.sites}
    rows |= {name: ("other", spare.positions) for name, spare in why.items() if name not in rows}
    rows |= {k: ("vector" if p.ndim < 2 else "other", 0) for k, p in state.items() if k not in rows}
    for name, (op, positions) in rows.items():
        if name in state:
            left_out = why[name].why if name in why else None
            yield Weight(name, op, int(state[name].count_nonzero()), positions, left_out, state[name])


def sizes(module: nn.Module, traced: Traced, nbytes: int) -> dict[str, Any]:
    """params, nnz, macs, nbytes of a net. nnz counts all weights, not biases or norms; macs are nnz x positions."""
    every = list(weights(module, traced))
    return {
        "params": sum(w.value.numel() for w in every),
        "nnz": sum(w.nnz for w in every if w.counted),
        "macs": sum(w.macs for w in every),
        "nbytes": nbytes,
    }


def left_out(traced: Traced) -> list[dict[str, Any]]:
    """Weights that stay as they are whatever the recipe says: name, shape, number, bytes, share of all weights, why."""
    total = sum(math.prod(s) for s in traced.program.shapes.values() if len(s) > 1)
    return [
        {"name": x.name, "shape": list(x.shape), "n": x.n, "nbytes": x.nbytes, "share": x.n / total, "why": x.why}
        for x in traced.left_out
    ]


def left_out_note(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """One sentence that names the weights no constraint can act on, with their share; None when there are none."""
    if not rows:
        return None
    named = ", ".join(f"{r['name']} ({r['nbytes']:,} B, {100 * r['share']:.1f} %, {r['why']})" for r in rows)
    return (
        f"left as they are, no constraint acts on them: {named}; together {sum(r['n'] for r in rows)} weights, "
        f"{sum(r['nbytes'] for r in rows):,} B, {100 * sum(r['share'] for r in rows):.1f} % of all, which every budget "
        "counts"
    )
