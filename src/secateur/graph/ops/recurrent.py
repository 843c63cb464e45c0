"""LSTM, GRU and Elman networks, and their cells: every weight is used once a time step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.graph.calling import tensors_of
from secateur.graph.ops._operator import Labels, Use, View, told
from secateur.graph.ops.opaque import Opaque
from secateur.graph.program import Call, Program, owner, shape_of

_CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True)
class Direction:
    """One direction of one layer, its parameters as the call is given them.

    Attributes:
        w_in, w_rec: [gates x units, inputs] and [gates x units, units].
        biases: two or none.
    """

    w_in: Call
    w_rec: Call
    biases: tuple[Call, ...]


class Recurrent(Opaque):
    """Weights stack their gates along axis 0 (LSTM: input, forget, cell, output; GRU: reset, update, new).

    A unit is its gate rows of both weights and both biases and its column of the recurrent weight. Torch keeps one
    number of units for all layers and directions, so the units of one number are one channel. A unit whose rows and
    biases are zero and whose state begins at zero stays there, in each of the three kinds of cells. Cells called one by
    one and LSTMs with a projection keep all their units, and all their weights matter while anything does.
    """

    targets: ClassVar[frozenset[str]] = frozenset(
        {f"aten.{c}.{kind}" for c in _CELLS for kind in ("input", "data")} | {f"aten.{c}_cell.default" for c in _CELLS}
    )

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        x = shape_of(node.args[0])  # [steps, batch, inputs], batch first or not, or a cell's [batch, inputs]
        steps = max(1, math.prod(x[:-1]) // max(1, program.batch))
        names = [program.params[a.name] for a in node.all_input_nodes if a.name in program.params]
        return {n: Use("recurrent", steps) if len(program.shapes[n]) > 1 else Use("bias") for n in names}

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        found = super().affine(node, need, program)
        return found if not _whole(node) else {k: v for k, v in found.items() if v.dim() == 1}

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        return ~live & (view.value(source) == 0) if _whole(node) else None

    def positive(self, node: Call, view: View) -> Any:
        if not _whole(node):
            return super().positive(node, view)
        units = [u for u, _ in _flows(node, view.mask(node.args[0]), _states(node, view.mask), view.weight)]
        y, *states = node.meta["val"]
        both = torch.cat(units[-_directions(node) :])
        stacked = torch.stack(units)
        stacked = stacked.unsqueeze(1) if states[0].dim() == 3 else stacked
        return both.expand(tuple(y.shape)), *(stacked.expand(tuple(s.shape)) for s in states)

    def inside(self, node: Call, need: Any, view: View, program: Program) -> dict[str, Tensor]:
        """Rows of units that a later step, the other layers or a reader need; of units that stay at zero none is."""
        if not weights_of(node, program):
            return {}
        with torch.no_grad():
            flows = list(_flows(node, view.nonzero(node.args[0]), _states(node, view.nonzero), view.weight))
        wanted_y, *wanted = tensors_of(need)
        n, both = _units(node), _directions(node)
        last = wanted_y.reshape(-1, both, n).any(0)
        found: dict[str, Tensor] = {}
        behind = last.new_zeros(both * n)
        for at in reversed(range(len(flows))):
            active, reach = flows[at]
            own = last[at % both] if at >= len(flows) - both else behind.reshape(both, n)[at % both]
            own = own | torch.stack([w[at].reshape(-1, n).any(0) for w in wanted]).any(0)
            kept = (active > 0) & ((reach.T @ own.to(reach.dtype)) > 0)
            direction = list(_parts(node))[at]
            w = view.weight(direction.w_in).detach()
            found[program.params[direction.w_in.name]] = kept.repeat(len(w) // n)
            if at % both == both - 1:
                after = last.new_zeros(w.shape[1])
            after = after | (w.reshape(-1, n, w.shape[1]).sum(0)[kept] > 0).any(0)
            if at % both == 0:
                behind = after
        return found

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        if not weights_of(node, program):
            return super().label(node, see, labels, program)
        n, first = _units(node), next(_parts(node))
        known = labels.axes.get((program.params[first.w_in.name], 0))
        units = labels.new(n) if known is None else torch.from_numpy(known[:n])
        labels.units.update(units.tolist())
        both = units.repeat(_directions(node))
        x = see(node.args[0])
        read = labels.joined(x, x.dim() - 1)
        for at, part in enumerate(_parts(node)):
            for p in (part.w_in, part.w_rec, *part.biases):
                labels.attach(program.params[p.name], 0, units.repeat(shape_of(p)[0] // n))
            labels.attach(program.params[part.w_rec.name], 1, units)
            labels.attach(program.params[part.w_in.name], 1, both if at >= _directions(node) else read)
        for source in _state_calls(node):
            labels.union(see(source), units.expand(shape_of(source)))
            if not issubclass(program.kinds.get(owner(source), nn.Module), nn.RNNBase):
                labels.suspect(source.name, units)  # made in the code, of so many units
        y, *states = (torch.Size(v.shape) for v in node.meta["val"])
        return both.expand(y), *(units.expand(s) for s in states)

    def keeps(self, node: Call) -> str:
        return f"{told(node)}: {_what_keeps(node)}"

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        return tuple((name, 0) for name in weights_of(node, program))


def weights_of(node: Call, program: Program) -> list[str]:
    """The weights of a call whose units can be told apart, layer by layer."""
    if not _whole(node) or any(p.name not in program.params for p in node.args[2]):
        return []
    return [program.params[p.name] for part in _parts(node) for p in (part.w_in, part.w_rec)]


def _what_keeps(node: Call) -> str:
    """Why the units of a call cannot be told apart, in words."""
    if not str(node.target).endswith(".input"):
        return "the code calls it step by step" if "cell" in str(node.target) else "it reads packed sequences"
    states = _state_calls(node)
    if len(states) == 2 and shape_of(states[0])[-1] != shape_of(states[1])[-1]:
        return "its state is projected (proj_size), which hides single units"
    return "its weights are computed, or one stands in two places"


def _whole(node: Call) -> bool:
    """Is it a call of whole layers, all their parameters plain, of which none projects its state?"""
    if not str(node.target).endswith(".input"):
        return False
    given = node.args[2]
    per = 4 if node.args[3] else 2
    plain = all(p.op == "placeholder" for p in given) and len({p.name for p in given}) == len(given)
    return plain and len(given) == per * node.args[4] * _directions(node)


def _directions(node: Call) -> int:
    return 2 if node.args[7] else 1


def _units(node: Call) -> int:
    return shape_of(node.args[2][1])[1]


def _parts(node: Call) -> Iterator[Direction]:
    given, per = node.args[2], 4 if node.args[3] else 2
    for i in range(0, len(given), per):
        yield Direction(given[i], given[i + 1], tuple(given[i + 2 : i + per]))


def _state_calls(node: Call) -> list[Call]:
    hx = node.args[1]
    return list(hx) if isinstance(hx, list | tuple) else [hx]


def _states(node: Call, see: Callable[[Call], Tensor]) -> Tensor:
    """What the first states hold, [layers x directions, units]."""
    n = _units(node)
    total = sum(see(s).reshape(shape_of(s)[0], -1, n).sum(1) for s in _state_calls(node))
    assert isinstance(total, Tensor)
    return total


def _flows(node: Call, x: Tensor, states: Tensor, weight: Callable[[Call], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """For every direction of every layer which units are other than zero, and which of them moves which, in any number
    of steps ([unit, unit it comes from], with itself)."""
    n, both = _units(node), _directions(node)
    given = x.reshape(-1, x.shape[-1]).sum(0)
    made: list[Tensor] = []
    for at, part in enumerate(_parts(node)):
        w_in, w_rec = (w.reshape(-1, n, w.shape[1]).sum(0) for w in (weight(part.w_in), weight(part.w_rec)))
        reach = _closed(w_rec.detach())
        seed = w_in @ given + states[at]
        for b in part.biases:
            seed = seed + weight(b).detach().reshape(-1, n).sum(0)
        seed = _bounded(seed)
        units = _bounded(reach @ (seed + w_rec @ (reach @ seed)))
        yield units, reach
        made.append(units)
        if at % both == both - 1:
            given = torch.cat(made[-both:])


def _bounded(x: Tensor) -> Tensor:
    """At most 1, as positive as before: sums over paths must not overflow where layers are many."""
    return x / x.detach().clamp(min=1.0)


def _closed(links: Tensor) -> Tensor:
    """0/1 [units, units]: which unit is reached from which, in no step or more."""
    reach = ((links > 0) | torch.eye(len(links), dtype=torch.bool, device=links.device)).to(links.dtype)
    for _ in range(max(len(links) - 1, 1).bit_length()):
        reach = (reach @ reach > 0).to(links.dtype)
    return reach
