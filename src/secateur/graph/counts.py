"""What a network holds and what it multiplies, weight by weight: the one count behind budget, report and `verify`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateur.graph.coupling import OUTPUT
from secateur.graph.factors import names_of
from secateur.types import Inventory, Weight

if TYPE_CHECKING:
    from torch import nn

    from secateur.contracts import Term
    from secateur.graph import Traced

_NAMED = 4  # layers, and reasons, that a note names


def weights(module: nn.Module, traced: Traced) -> Iterator[Weight]:
    """Every parameter of `module` once: sites in the order of use, weights on which nothing can act, then the rest.

    Args:
        traced: of this module, or of what it was before channels were removed and layers split.
    """
    state = {k: p.detach() for k, p in module.named_parameters()}
    why = {spare.name: spare for spare in traced.left_out}
    rows = {s.name: (s.op, s.positions) for s in traced.sites}
    rows |= {name: ("other", spare.positions) for name, spare in why.items() if name not in rows}
    stored = {name: names_of(name, state.keys()) for name in rows}
    known = {k for names in stored.values() for k in names}
    rows |= {k: ("vector" if p.ndim < 2 else "other", 0) for k, p in state.items() if k not in known}
    for of, (op, positions) in rows.items():
        left_out = why[of].why if of in why else None
        for name in stored.get(of, (of,)):
            yield Weight(name, op, int(state[name].count_nonzero()), positions, left_out, state[name], of)


def inventory(
    module: nn.Module, traced: Traced, file: Callable[[], int], onnx: Callable[[], bytes] | None = None
) -> Inventory:
    """What meters measure of a net.

    Args:
        traced: of this module, or of what it was before channels were removed.
        file: answers the bytes of its `.sct` file; `onnx`: its `.onnx` file.
    """
    return Inventory(tuple(weights(module, traced)), file, onnx)


def left_out(traced: Traced) -> list[dict[str, Any]]:
    """Weights that stay as they are whatever the recipe says: name, shape, number, bytes, share of all weights, why."""
    total = sum(math.prod(s) for s in traced.program.shapes.values() if len(s) > 1)
    return [
        {"name": x.name, "shape": list(x.shape), "n": x.n, "nbytes": x.nbytes, "share": x.n / total, "why": x.why}
        for x in traced.left_out
    ]


def held(traced: Traced, outputs: bool = False) -> list[dict[str, Any]]:
    """Channels that cannot be removed: name of the weight, `n` of its `of` channels, why.

    Args:
        outputs: those too that make the model's outputs.
    """
    rows = [x for x in traced.held if x.n and (outputs or x.why != OUTPUT)]
    return [{"name": x.name, "n": x.n, "of": x.of, "why": x.why} for x in rows]


def held_note(traced: Traced, outputs: bool = False) -> str | None:
    """One sentence that names the channels of `held`, by reason; None where there are none."""
    by: dict[str, list[str]] = {}
    for row in held(traced, outputs):
        by.setdefault(row["why"], []).append(f"{row['name']} ({row['n']} of {row['of']})")
    if not by:
        return None
    parts = [
        f"{', '.join(v[:_NAMED])}{f' and {len(v) - _NAMED} more' if len(v) > _NAMED else ''}: {k}"
        for k, v in by.items()
    ]
    more = f"; and for {len(parts) - _NAMED} more reasons, see `secateur sites`" if len(parts) > _NAMED else ""
    return f"channels that cannot be removed: {'; '.join(parts[:_NAMED])}{more}"


def channels_note(terms: Sequence[Term], traced: Traced) -> str | None:
    """`held_note` where some term removes channels."""
    return held_note(traced) if any(t.site.op == "channels" for t in terms) else None


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
