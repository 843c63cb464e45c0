"""Activating-while-Pruning: around any solver, negative weights that hardly moved go first, so that units fire more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from secateur.contracts import Problem, Solver, SolverState, Term
from secateur.errors import UsageError
from secateur.solvers.gradual import Gradual
from secateur.terms import views
from secateur.types import Solution, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Activating(Solver):
    """`solver` as it is, with a share of every pruning chosen by sign and by movement.

    Whenever importances are asked for, those `share` of a site's nonzero weights that are negative and have moved least
    since the approach began count next to nothing: they go before the others, as far as the budget makes anything go.
    What a unit reads behind a ReLU is not negative, so that without a negative weight it is never less active, for any
    input: its rate of zero answers cannot rise. Sites that read the net's input, of any sign, are left alone (those
    that no other site's `readers` names), as are nets with other activations by not asking for this. For sets of single
    weights.

    It wants steps enough that weights differ in how far they have moved: Adam's first steps are as long for all, and
    what goes by sign is then drawn among the negative weights, large ones too (digits CNN, 10 % of the weights: 25
    steps and 11 of retraining 71 % accuracy, `gradual` alone 85; 252 and 108 steps 93.4 and 93.6).

    Args:
        solver: any solver, as a recipe's `solver` writes it: `{name: activating, solver: {name: admm}}`.
    Reference: Liu et al., AP, TMLR 2023, arXiv:2212.06145.
    """

    solver: Solver = field(default_factory=Gradual)
    share: float = 0.02
    reference: ClassVar[str] = "Liu et al., AP, TMLR 2023, arXiv:2212.06145"

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UsageError(f"solver activating: share={self.share}; 0 <= share < 1 needed")
        for name in ("instant", "by_chance", "moves_values", "needs"):  # what is said of the solver inside holds
            object.__setattr__(self, name, getattr(self.solver, name))

    def refuses(self, term: Term) -> str | None:
        """Sets whose units are not single weights, and what the solver inside refuses."""
        if term.site.op == "channels" or not _single(term):
            return f"activating chooses single weights; {term.constraint.name} drops several at once"
        return self.solver.refuses(term)

    def legs(self) -> tuple[tuple[Solver, float, float, float], ...]:
        """Those of the solver inside."""
        return tuple((replace(self, solver=s), share, low, high) for s, share, low, high in self.solver.legs())

    def init(self, problem: Problem) -> _State:
        """The solver's own state, with the weights as they are now beside."""
        return _State(self, problem)

    def before_step(self, state: _State) -> None:
        """The solver's."""
        self.solver.before_step(state.inner)

    def step(self, state: _State) -> _State:
        """The solver's."""
        state.inner = self.solver.step(state.inner)
        state.round_changed = state.inner.round_changed
        return state

    def finish(self, state: _State) -> Solution:
        """The solver's."""
        return self.solver.finish(state.inner)

    def penalty(self, state: _State) -> Tensor | float:
        """The solver's."""
        return self.solver.penalty(state.inner)


class _State:
    """The state of the solver inside, whose problem answers other importances."""

    def __init__(self, solver: Activating, problem: Problem) -> None:
        self.problem, self.share, self.round_changed = problem, solver.share, False
        read = {name for t in problem.terms for name in t.site.readers}
        self.behind = tuple(t for t in problem.terms if t.site.name in read)
        self.start = {m.param: problem.params[m.param].detach().clone() for t in self.behind for m in t.site.members}
        self.inner: SolverState = solver.solver.init(replace(problem, importance=self.importance))

    def importance(self) -> dict[str, Tensor | None]:
        """The problem's own, next to nothing where a weight is negative and among those that moved least."""
        found = dict(self.problem.importance())
        for term in self.behind:
            name, params = term.site.name, {m.param: self.problem.params[m.param].detach() for m in term.site.members}
            w, began = (views.matrix(term.site, term.constraint.view, p) for p in (params, self.start))
            h = found.get(name)
            found[name] = (torch.ones_like(w) if h is None else h) * _kept(w, began, self.share)
        return found

    @property
    def span(self) -> tuple[int, int]:
        return self.inner.span

    def tracked(self) -> dict[str, Tensor]:
        return self.inner.tracked()

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        return self.inner.candidate(weights)

    def numbers(self) -> dict[str, float]:
        return self.inner.numbers()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = self.inner.state_dict()
        return {
            **{f"began.{k}": w for k, w in self.start.items()},
            **{f"own.{k}": w for k, w in tensors.items()},
        }, facts

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.start = {k.removeprefix("began."): w for k, w in tensors.items() if k.startswith("began.")}
        own = {k.removeprefix("own."): w for k, w in tensors.items() if k.startswith("own.")}
        self.inner.load_state_dict(own, facts)


def _kept(w: Tensor, began: Tensor, share: float) -> Tensor:
    """1, and nearly 0 for so many of the nonzero weights: the negative ones that moved least. [rows, cols]."""
    moved = (w - began).abs().masked_fill(w >= 0, torch.inf).flatten()
    small = w.abs().flatten().argsort(stable=True)  # the smaller of two that moved alike: before the first step all did
    n = min(int(share * int(w.count_nonzero())), int((w < 0).sum()))
    factor = torch.ones_like(moved)
    factor[small[moved[small].argsort(stable=True)][:n]] = 1e-12
    return factor.reshape(w.shape)


def _single(term: Term) -> bool:
    """Is every weight a unit of its own in each set of the term?"""
    shape = views.shape(term.site, "oc", {})
    return all(int(part.units_of(shape).max()) + 1 == shape[0] * shape[1] for part, _ in term.constraint.split(None))
