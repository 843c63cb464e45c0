"""Solvers that prune one layer after the other by its inputs on calibration data, without gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Constraint, Problem, Term
from secateur.solvers._at_once import AtOnce
from secateur.solvers._state import State
from secateur.terms import views
from secateur.terms.live import SETTLED
from secateur.types import Level, Stage

# Every one measures the inputs of all layers anew. Spoken digits at 95 %, one threshold for all layers: of 3,034
# weights 1,537 matter without, 1,708 after 4 and 1,964 after 12: layers that are chosen one by one do not meet.
_REFILLS = 4


@dataclass(frozen=True)
class Layerwise(AtOnce):
    """`prune` answers one layer; layers come in the order of the network and see what the ones before left.

    One layer's Gram matrix is in memory at a time. Masked retraining follows, where epochs are left.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"input_gram"})

    @abstractmethod
    def prune(self, constraint: Constraint, weight: Tensor, level: Level, hessian: Tensor) -> Tensor:
        """The member of the set for one layer's matrix.

        Args:
            weight: [rows, cols], the rows of each group together; not changed.
            hessian: 2 X X^T, [groups, cols, cols].
        """

    def refuses(self, term: Term) -> str | None:
        """What is no linear or convolution weight, and sets that leave nothing in a layer to make up for what goes."""
        name, support = self.name, term.constraint.before(Stage.VALUES, None)
        if support is None or support[0].stage != Stage.SUPPORT:
            return f"{name} chooses which weights of a layer stay; that is no question for {term.constraint.name}"
        if any(part.unit == "row" for part, _ in support[0].split(None)):
            return f"{name} has the rest of a row make up for what goes of it, and {support[0].name} has whole rows go"
        plain = term.site.op in ("conv", "linear") and len(term.site.shape) in (2, 3, 4) and len(term.site.members) == 1
        return None if plain else f"{name} needs a linear or a convolution weight, this is {term.site.op}"

    @property
    def name(self) -> str:
        """As in recipes."""
        return type(self).__module__.rpartition(".")[2]

    def init(self, problem: Problem) -> State:
        """Prune all layers, and again without weights that cannot matter, until these are few."""
        state, start = State(problem), {k: p.detach().clone() for k, p in problem.params.items()}
        state.levels = state.project(1.0)[0]
        dead = {k: torch.zeros_like(w, dtype=torch.bool) for k, w in start.items()}
        for _ in range(_REFILLS + 1):
            state.show({k: w.masked_fill(dead[k], 0) for k, w in start.items()})
            for term in problem.terms:
                self._layer(state, term, dead)
            found = {k: now & ~dead[k] for k, now in _dead(state).items()}
            if not any(bool(new.any()) for new in found.values()):
                break
            dead = {k: d | found[k] if k in found else d for k, d in dead.items()}
        state.show({k: w.masked_fill(dead[k], 0) for k, w in state.live.items()})
        state.freeze(state.live)
        return state

    def _layer(self, state: State, term: Term, dead: Mapping[str, Tensor]) -> None:
        """Prune one."""
        (member,), view, level = term.site.members, term.constraint.view, state.levels[term.site.name]
        if level is None:
            return
        hessian = state.problem.statistics(member.param, "input_gram")
        assert hessian is not None, "asked for in `needs`"
        live = state.live
        order = _columns(term, live[member.param])
        hessian, weight = hessian[:, order][:, :, order], views.matrix(term.site, view, live)
        # A column that brings nothing must not take anything over.
        groups, cols = hessian.shape[:2]
        gone = views.matrix(term.site, view, dead).view(groups, -1, cols).all(dim=1)
        hessian = hessian.masked_fill(gone[:, None] | gone[:, :, None], 0.0)
        state.show(views.write(term.site, view, live, self.prune(term.constraint, weight, level, hessian)))


def _dead(state: State) -> dict[str, Tensor]:
    """Kept weights that cannot matter, per parameter; empty where they are few."""
    if state.problem.effective is None:
        return {}
    names, live = {m.param for t in state.problem.terms for m in t.site.members}, state.live
    alive = state.problem.effective(live)
    found = {k: (live[k] != 0) & ~alive[k] for k in names if k in alive}
    few = SETTLED * sum(int(live[k].count_nonzero()) for k in names)
    return found if sum(int(d.sum()) for d in found.values()) > few else {}


def _columns(term: Term, param: Tensor) -> Tensor:
    """Where the columns of the term's view stand in the parameter's own order."""
    flat = torch.arange(param.numel()).reshape(param.shape)
    return views.matrix(term.site, term.constraint.view, {term.site.members[0].param: flat})[0]
