"""Where influence flows, for given weights: which units move with the input, which ones reach an output.

Two sweeps over the program on 0/1 masks of whole activations (a "positive network": the same calls with each weight
replaced by whether it is nonzero). Forward: an element is *live* when some input can change it; what is not live is a
constant, known by running the net once. Backward, twice: `reach` follows nonzero weights to the outputs; `need` also
stops where a constant can be carried by the reader's bias instead. Structural, so exact up to cancellation:
an element called constant or unneeded certainly is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from secateur.graph.calling import tensors_of
from secateur.graph.doubled import in_double
from secateur.graph.ops import rule
from secateur.graph.ops._operator import View, shaped
from secateur.graph.program import Call, Program
from secateur.types import Weights

Masks = dict[Call, Any]  # a bool tensor, or a tuple of them, per node


@dataclass
class Flow:
    """The masks of one set of weights.

    Attributes:
        live: node -> bool, the element depends on the input.
        need: node -> bool, the element's value is needed once constants are folded.
        effective: parameter name -> bool, as `Traced.effective` says.
        folds: (reading call, its input) -> bool mask of constants that the reader's bias can carry.
        values: lazily, node -> its value on the example inputs, in double where the code allows it.
    """

    program: Program
    weights: dict[str, Tensor]
    live: Masks = field(default_factory=dict)
    reach: Masks = field(default_factory=dict)
    need: Masks = field(default_factory=dict)
    effective: dict[str, Tensor] = field(default_factory=dict)
    folds: dict[Call, Tensor] = field(default_factory=dict)
    _values: dict[Call, Any] | None = None
    _kept: dict[str, Tensor] = field(default_factory=dict)  # by placeholder: 1 where a weight is not zero
    _seen: dict[str, float] = field(default_factory=dict)  # how often each weight had been written to

    def is_of(self, weights: Mapping[str, Tensor]) -> bool:
        """Are these still the weights that were looked at? By value; False as well where they were written to since."""
        return weights.keys() == self.weights.keys() and all(
            self._seen[k] == _writes(w) and _equal(w, weights[k]) for k, w in self.weights.items()
        )

    @property
    def inside(self) -> dict[str, Tensor]:
        """Parameter name -> the rows that calls need inside (`Operator.inside`)."""
        quiet = _view(self, lambda a: self.live[a].to(torch.float32), lambda a: _weight(self, a))
        found: dict[str, Tensor] = {}
        for n in self.program.calls:
            if n in self.need:
                for name, rows in rule(n, self.program).inside(n, self.need[n], quiet, self.program).items():
                    found[name] = found[name] | rows if name in found else rows
        self._kept.clear()
        return found

    @property
    def values(self) -> dict[Call, Any]:
        """Values of all nodes on the example inputs."""
        if self._values is None:
            self._values = run(self.program, self.weights)
        return self._values


def analyse(program: Program, weights: Weights, known: Flow | None = None) -> Flow:
    """Both sweeps. `weights` may leave out parameters and buffers: those of the traced model are taken.

    Args:
        known: an earlier answer for this program, which is the answer again where the weights are the same.
    """
    merged = {**program.param_values, **program.buffer_values}
    merged.update({k: v.detach() for k, v in weights.items()})
    if known is not None and known.is_of(merged):
        return known
    flow = Flow(program, merged, _seen={k: _writes(w) for k, w in merged.items()})
    with torch.no_grad():
        _forward(flow)
    _backward(flow)
    flow._kept.clear()
    return flow


def _writes(w: Tensor) -> float:
    """How often a tensor was written to in place; where nobody counts, no number that equals itself."""
    return math.nan if w.is_inference() else w._version


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def run(program: Program, weights: Weights) -> dict[Call, Any]:
    """Every node's value on the example inputs; in double, or as the code is when it insists on its own types."""
    try:
        with in_double():
            return _run_as(program, weights, torch.float64)
    except (RuntimeError, TypeError):
        return _run_as(program, weights, None)


def _run_as(program: Program, weights: Weights, dtype: torch.dtype | None) -> dict[Call, Any]:
    def cast(t: Any) -> Any:
        return t.to(dtype) if dtype is not None and isinstance(t, Tensor) and t.is_floating_point() else t

    env: dict[Call, Any] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for n in program.nodes:
            if n.op in ("placeholder", "get_attr"):
                env[n] = cast(program.given(n, weights))
            elif n.op == "call_function":
                env[n] = n.target(*fx.node.map_arg(n.args, env.get), **fx.node.map_arg(n.kwargs, env.get))
    return env


def loose_params(program: Program) -> set[str]:
    """Parameters used in a way no operator kind describes: always effective, never cut."""
    found = set()
    for n in program.calls:
        known = rule(n, program).sites(n, program)
        found |= {program.params[a.name] for a in n.all_input_nodes if a.name in program.params} - known.keys()
    return found


def _view(flow: Flow, masks: Callable[[Call], Tensor], weight: Callable[[Call], Tensor]) -> View:
    def nonzero(node: Call) -> Tensor:
        moving: Tensor = flow.live[node] | (flow.values[node] != 0)
        return moving.to(torch.float32)

    program = flow.program
    is_param = lambda a: getattr(a, "name", "") in program.params  # noqa: E731
    return View(masks, nonzero, weight, lambda n: flow.values[n], is_param, program.constant)


def _weight(flow: Flow, node: Call) -> Tensor:
    if node.name not in flow._kept:
        flow._kept[node.name] = (flow.program.given(node, flow.weights) != 0).to(torch.float32)
    return flow._kept[node.name]


def _forward(flow: Flow) -> None:
    program = flow.program
    view = _view(flow, lambda n: flow.live[n].to(torch.float32), lambda n: _weight(flow, n))
    for n in program.nodes:
        if n.op in ("placeholder", "get_attr"):
            value = program.given(n, flow.weights)
            if isinstance(value, Tensor):
                flow.live[n] = torch.full(value.shape, n.name in program.inputs, device=value.device)
        elif n.op == "call_function":
            flow.live[n] = _live(flow, n, view)


def _live(flow: Flow, n: Call, view: View) -> Any:
    if _is_getitem(n):
        return flow.live[n.args[0]][n.args[1]]
    if not any(bool(_any(flow.live.get(a))) for a in n.all_input_nodes):
        return _like(n, False, flow)
    out = rule(n, flow.program).positive(n, view)
    return torch.utils._pytree.tree_map(lambda t: t > 0 if isinstance(t, Tensor) else t, out)


def _backward(flow: Flow) -> None:
    program = flow.program
    for name, value in program.param_values.items():
        flow.effective[name] = torch.zeros(value.shape, dtype=torch.bool, device=flow.weights[name].device)
    for name in loose_params(program):
        flow.effective[name][...] = True
    for masks in (flow.reach, flow.need):
        for n, live in flow.live.items():
            masks[n] = _filled(live, False)
        for n in program.output.all_input_nodes:
            masks[n] = _filled(masks[n], True)
    for n in reversed(program.calls):
        if _is_getitem(n):
            for masks in (flow.reach, flow.need):
                slots = list(masks[n.args[0]])
                slots[n.args[1]] = slots[n.args[1]] | masks[n]
                masks[n.args[0]] = tuple(slots)
        else:
            _pull(flow, n)


def _pull(flow: Flow, n: Call) -> None:
    """From a call's output masks to those of its inputs and parameters."""
    reach, need = tensors_of(flow.reach[n]), tensors_of(flow.need[n])
    if not any(bool(r.any()) for r in reach):
        return
    program, kind = flow.program, rule(n, flow.program)
    sources = [a for a in n.all_input_nodes if isinstance(flow.live.get(a), Tensor) and a.name not in program.params]
    quiet = _view(flow, lambda a: flow.live[a].to(torch.float32), lambda a: _weight(flow, a))
    carried = {}
    for a in sources:
        live = flow.live[a]
        stuck = torch.ones_like(live)
        if not bool(live.all()):
            free = kind.absorbed(n, a, live, program, quiet)
            if free is not None:
                stuck = live | ~free
                flow.folds[n] = free & ~live
        carried[a] = stuck
    leaves = {a: carried[a].to(torch.float32).requires_grad_() for a in sources}
    params: dict[Call, Tensor] = {}

    def weight(a: Call) -> Tensor:
        if a not in params:
            params[a] = _weight(flow, a).detach().requires_grad_()
        return params[a]

    with torch.enable_grad():
        view = _view(flow, lambda a: leaves[a] if a in leaves else flow.live[a].to(torch.float32), weight)
        outs = tensors_of(kind.positive(n, view))
    for name, mask in kind.affine(n, need[0] if need else torch.zeros(1), program).items():
        flow.effective[name] |= mask.reshape(flow.effective[name].shape).to(flow.effective[name].device)
    got = _vjp(outs, reach, [*leaves.values(), *params.values()])
    for a, g in zip([*leaves, *params], got, strict=True):
        if a in leaves:
            flow.reach[a] = flow.reach[a] | g
        else:
            flow.effective[program.params[a.name]] |= g
    alike = all(torch.equal(r, m) for r, m in zip(reach, need, strict=True))
    for a, g in zip(leaves, got[: len(leaves)] if alike else _vjp(outs, need, list(leaves.values())), strict=True):
        flow.need[a] = flow.need[a] | (g & carried[a])


def _vjp(outs: list[Tensor], masks: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    pairs = [(o, m.to(o.dtype)) for o, m in zip(outs, masks, strict=True) if o.requires_grad and bool(m.any())]
    if not pairs or not leaves:
        return [torch.zeros_like(x, dtype=torch.bool) for x in leaves]
    grads = torch.autograd.grad(
        [o for o, _ in pairs], leaves, [m for _, m in pairs], retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(x, dtype=torch.bool) if g is None else g > 0 for g, x in zip(grads, leaves, strict=True)]


def _is_getitem(n: Call) -> bool:
    return getattr(n.target, "__name__", "") == "getitem"


def _any(masks: Any) -> bool:
    return any(bool(m.any()) for m in tensors_of(masks))


def _like(n: Call, value: bool, flow: Flow) -> Any:
    device = next(iter(flow.program.example.values())).device
    return shaped(n.meta.get("val"), lambda shape: torch.full(shape, value, device=device))


def _filled(masks: Any, value: bool) -> Any:
    return torch.utils._pytree.tree_map(
        lambda t: torch.full_like(t, value, dtype=torch.bool) if isinstance(t, Tensor) else t, masks
    )
