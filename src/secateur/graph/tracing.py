"""`trace`: the sites of a network, its coupled channel groups and its effective weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UnsupportedError
from secateur.graph import loose
from secateur.graph.capture import capture
from secateur.graph.coupling import Coupling, couple
from secateur.graph.example import Example, settle
from secateur.graph.flow import Flow, analyse
from secateur.graph.ops import rule
from secateur.graph.ops._operator import Use
from secateur.graph.ops.creation import Creation
from secateur.graph.program import Call, Program
from secateur.graph.thumbnail import thumbnail
from secateur.types import Held, LeftOut, Member, Site, Weights

_BESIDE = ("bias", "norm", "embedding")  # what stands beside the weights that make channels: added, scaled, positions


@dataclass(frozen=True)
class Traced:
    """What the graph of a network says about its weights. Made by `trace`; holds no reference to the module.

    Attributes:
        sites: weights, biases, norms and embeddings, in the order in which the network uses them.
        program: the captured calls.
        thumbnail: the same of smaller pictures, where they are large: for estimates (`thumbnail.py`).
    """

    program: Program
    sites: tuple[Site, ...]
    thumbnail: Traced | None = None
    _last: list[Flow] = field(default_factory=list, repr=False, compare=False)

    @cached_property
    def coupling(self) -> Coupling:
        """Channel labels; computed when first asked for."""
        return couple(self.program)

    @property
    def groups(self) -> tuple[Site, ...]:
        """One `channels` site per kind of coupled channel that may be removed, as busy as its producers on average."""
        known = {s.name: s for s in self.sites}

        def readers(group: Site) -> tuple[str, ...]:
            behind = {name for m in group.members for name in known[m.param].readers}
            columns = {m.param for m in group.removes if m.param in behind and m.axis not in known[m.param].rows}
            depthwise = {m.param for m in group.members if known[m.param].groups > 1}
            return tuple(name for name in known if name in behind & (columns | depthwise))

        def busy(group: Site) -> int:
            producers = [known[m.param] for m in group.members if m.param in known]
            return round(sum(s.n * s.positions for s in producers) / max(sum(s.n for s in producers), 1)) or 1

        return tuple(
            replace(g, positions=busy(g), readers=readers(g)) for g in (self.thumbnail or self).coupling.groups
        )

    @cached_property
    def macs(self) -> dict[str, int]:
        """Dense multiply-adds per example, per weight that multiplies; biases and norms are not counted."""
        return {s.name: s.n * s.positions for s in self.sites if s.positions}

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Weights of two or more axes on which no constraint can act; what they cost is spent whatever is asked."""
        program, sites = self.program, {s.name: s for s in self.sites}
        returned = {program.params[a.name] for a in program.output.all_input_nodes if a.name in program.params}
        found = []
        for name, shape in program.shapes.items():
            site = sites.get(name)
            if len(shape) < 2 or (site is not None and name not in program.frozen):
                continue
            if site is not None:
                found.append(LeftOut(name, shape, "frozen (requires_grad is False)", site.positions))
            elif name in returned:
                found.append(LeftOut(name, shape, "handed to an output as it is"))
            else:
                found.append(LeftOut(name, shape, "not used by forward in evaluation mode"))
        return tuple(found)

    @property
    def held(self) -> tuple[Held, ...]:
        """Channels that cannot be removed, with the reason; those that make the outputs among them."""
        return self.coupling.held

    @property
    def free(self) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
        """Sites and groups on which constraints may act: none of their weights is frozen."""

        def moves(site: Site) -> bool:
            return not any(m.param in self.program.frozen for m in site.members)

        return tuple(filter(moves, self.sites)), tuple(filter(moves, self.groups))

    def flow(self, weights: Weights) -> Flow:
        """Masks of influence for these weights. The last answer is kept: a price projects first, then cuts."""
        self._last[:] = [analyse(self.program, weights, *self._last)]
        return self._last[0]

    def effective(self, weights: Weights) -> dict[str, Tensor]:
        """Which entries of each parameter can still matter, as bool tensors of the parameters' shapes.

        An entry is effective when its input unit moves with the model's input, and its output unit has a path of
        nonzero weights to an output. Zero entries follow the same rule: they are effective when setting them alone
        would change what the network computes. Weights that read a constant unit count as effective only where no
        bias can take the constant over (nonzero constants under zero padding). A bias or a norm's shift is effective
        when its unit's value is needed after that folding. Parameters that the network does not use are all False.

        Of large pictures a thumbnail is asked: solvers ask this every few steps, and cuts do not go by it.

        Args:
            weights: parameter name -> tensor; parameters and buffers left out are taken from the traced model.
        """
        return (self.thumbnail or self).flow(weights).effective

    def kept(self, weights: Weights) -> dict[str, Tensor]:
        """Companions of removed channels: bool masks for the `removes` of all groups that add or scale (biases, norms).

        False where every producer row of a channel is zero: what is added to it there must be zero as well (and
        stay so in retraining), or the channel goes on sending a constant and cannot be removed under zero padding.
        Consumers' input axes are not listed. The name of a parameter without such a channel is left out.
        """
        masks: dict[str, Tensor] = {}
        ops = {site.name: site.op for site in self.sites}
        for site in self.groups:
            alive = None
            for m in site.members:
                w = weights[m.param].detach()
                rows = (w != 0).movedim(m.axis, 0).reshape(w.shape[m.axis], -1).any(dim=1)
                at = (rows if m.index is None else rows[list(m.index)]).reshape(-1, m.repeat).any(dim=1)
                alive = at if alive is None else alive | at
            if alive is None or bool(alive.all()):
                continue
            for m in site.removes:
                if ops.get(m.param) not in _BESIDE:
                    continue
                shape = self.program.shapes[m.param]
                mask = masks.setdefault(m.param, alive.new_ones(shape))
                index = torch.arange(shape[m.axis]) if m.index is None else torch.tensor(m.index)
                mask.index_fill_(m.axis, index[~alive.cpu().repeat_interleave(m.repeat)].to(alive.device), False)
        return masks


def trace(model: nn.Module, example_inputs: Any) -> Traced:
    """Find the weights of a network and how they hang together.

    Args:
        model: any module that `torch.export` can capture; it is not changed. Tied parameters are one site.
        example_inputs: a tensor, a tuple (positional inputs) or a dict (keyword inputs), in which `settle` finds out
            whether rows are examples; or the `Example` that it made.
    Raises:
        UsageError: the model does not run on the example inputs, or has no weight.
        UnsupportedError: the model runs but cannot be traced; the message names the place in the user's code.
        ConstraintError: a parameter or a running statistic holds NaN or infinity.
    """
    example = example_inputs if isinstance(example_inputs, Example) else settle(model, example_inputs)
    program = capture(model, example)
    fewer = thumbnail(model, example, program)
    sites = _sites(program)
    if not sites:
        raise UnsupportedError(
            f"{type(model).__name__}: no weight found that could be compressed; its forward multiplies, adds or looks "
            "up no parameter (torch.nn.Parameter, not a buffer)"
        )
    return Traced(program, sites, None if fewer is None else Traced(fewer, sites))


def _sites(program: Program) -> tuple[Site, ...]:
    made = _made(program)
    last, ahead = _last(program, made), _ahead(program, made)
    uses: dict[str, list[Use]] = {}
    behind: dict[str, set[str]] = {}
    for n, call in made.items():
        for name, use in call:
            uses.setdefault(name, []).append(use)
            behind.setdefault(name, set()).update(ahead[n])
    sites = []
    for name, found in uses.items():
        readers = tuple(r for r in uses if r in behind[name])
        own = next((u for u in found if u.multiplies), found[0])
        often, shape = sum(u.positions for u in found), program.shapes[name]
        sites.append(
            Site(name, own.op, shape, (Member(name),), often, own.groups, name in last, readers=readers, rows=own.rows)
        )
    return tuple(sites)


def _made(program: Program) -> dict[Call, list[tuple[str, Use]]]:
    """What every call does with parameters: with those its kind claims, and with the others that it reads."""
    claims = {n: rule(n, program).sites(n, program) for n in program.calls}
    rest = loose.readers(program, claims)
    return {
        n: [*found.items(), *((r[1], loose.use(n, r, program)) for r in rest.get(n, ()))] for n, found in claims.items()
    }


def _ahead(program: Program, made: Mapping[Call, list[tuple[str, Use]]]) -> dict[Call, set[str]]:
    """For every call the weights that its result meets next, on every way to an output."""
    ahead: dict[Call, set[str]] = {}
    for n in reversed(program.calls):
        ahead[n] = set()
        for user in (u for u in n.users if not isinstance(rule(u, program), Creation)):
            weights = {name for name, use in made.get(user, ()) if use.multiplies}
            ahead[n] |= weights or ahead.get(user, set())
    return ahead


def _last(program: Program, made: Mapping[Call, list[tuple[str, Use]]]) -> set[str]:
    """Parameters of the calls whose result reaches an output through no further weight."""
    found: set[str] = set()
    todo, seen = list(program.output.all_input_nodes), set()
    while todo:
        n = todo.pop()
        if n in seen or n.op != "call_function":
            continue
        seen.add(n)
        found |= {name for name, _ in made[n]}
        if not any(use.multiplies for _, use in made[n]):
            todo.extend(n.all_input_nodes)
    return found
