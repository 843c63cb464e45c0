"""The laws of a solver, for every file of the room and for solvers from outside.

`check_solver(MySolver())` raises AssertionError naming the broken law and the case: weights with a known loss (a convex
quadratic), one of them a net with coupled channels, one with joint sets, and the edges of a menu.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from secateur import catalog, graph
from secateur.contracts import Constraint, Problem, Solver, Term
from secateur.terms import feasible, views
from secateur.terms.frozen import Frozen
from secateur.testing import nets
from secateur.types import Level, Member, Site, Weights

STEPS, _NET_STEPS = 10, 6  # of an approach
_DRAWS = 24  # quadratics, over which a solver's mean is compared with one-shot's
_TRAINED, _UNKNOWNS, _KEPT = 200, 16, 5
_STEEPEST, _EXAMPLES = 1e-3, 1000  # curvature as nets have it, and a second moment that goes with it


@dataclass(frozen=True)
class Case:
    """A problem: dense weights, their terms at given levels, the gradient of a convex loss."""

    label: str
    start: Mapping[str, Tensor]
    terms: tuple[Term, ...]
    gradient: Callable[[str, Tensor], Tensor]
    traced: graph.Traced | None = None
    steps: int = STEPS
    lr: float = 0.2

    def problem(self) -> Problem:
        """Fresh parameters, which the solver may change."""
        channels = self.traced if any(t.site.op == "channels" for t in self.terms) else None
        return Problem(
            {k: w.clone().requires_grad_() for k, w in self.start.items()},
            self.terms,
            self.levels,
            self.steps,
            effective=self.traced.effective if self.traced else None,
            companions=channels.kept if channels else None,
            statistics=self.statistic,
            learning_rate=lambda: self.lr,
            trial=self.loss,
        )

    def loss(self, weights: Weights) -> float:
        """Of the quadratic, less what the start loses: its gradient's mean on the straight way from there."""
        way = {k: (w.detach() - self.start[k], w.detach()) for k, w in weights.items()}
        return sum(
            float((d * (self.gradient(k, w) + self.gradient(k, self.start[k]))).sum()) / 2 for k, (d, w) in way.items()
        )

    def statistic(self, site: str, name: str) -> Tensor:
        """Of inputs that are all alike, and gradients of a half."""
        w = self.start[site]
        cols = w[0].numel()
        return torch.eye(cols)[None] if name == "input_gram" else torch.full_like(w, 0.5)

    def levels(self, weights: Weights, importance: object, tightness: float) -> dict[str, Level]:
        """As the budget answers for given levels."""
        found = {}
        for t in self.terms:
            rows, cols = views.matrix(t.site, t.constraint.view, weights).shape
            found[t.site.name] = t.constraint.at_tightness((rows, cols), t.level, tightness)
        return found

    def run(self, solver: Solver, problem: Problem, state: Any, steps: int) -> Any:
        """So many steps of gradient descent, each with the solver's own."""
        for _ in range(steps):
            pulled = slope(solver, problem, state)
            with torch.no_grad():
                for k, w in problem.params.items():
                    w.grad = self.gradient(k, w.detach()) + pulled[k]  # what masks learn from, as a loop leaves it
                solver.before_step(state)
                for w in problem.params.values():
                    assert w.grad is not None
                    w -= self.lr * w.grad
                state = solver.step(state)
        return state

    def __str__(self) -> str:
        return self.label


def check_solver(solver: Solver | type[Solver], brief: Solver | None = None) -> None:
    """Raise AssertionError when a solver breaks a law.

    Args:
        solver: an instance, or a class that can be made without arguments. Short rounds and stages show more in the
            ten steps of a case than long ones.
        brief: the same with less to do, for all laws but that of one-shot; of a solver that searches long before its
            first step, which the suite repeats a hundred times.
    """
    if isinstance(solver, type):
        solver = solver()
    brief = brief or solver
    able = [case for case in cases() if not any(brief.refuses(t) for t in case.terms)]
    assert able, f"{brief}: refuses every case"
    for case in able:
        for law in LAWS:
            law(brief, case)
    if any(not solver.refuses(t) for t in _kept_of_unknowns()):
        never_worse_than_one_shot(solver)


def cases() -> Iterator[Case]:
    """One weight under each kind of level, tied to no net; then whole nets."""
    topk, rows, nm = (catalog.load("constraints", name)() for name in ("topk", "rows", "nm"))
    yield _weights("top-k", (topk, 7))
    yield _weights("dense", (topk, None), (topk, 32))
    yield _weights("tightest", (topk, 0), (nm, 0))
    yield _weights("n:m and top-k", (nm, 2), (topk, 5))
    blocks = catalog.load("constraints", "blocks")
    yield _weights("blocks", (blocks(rows=2), 6), (blocks(rows=2, per_row=True), 3))
    yield _weights("no step at all", (topk, 7), steps=0)
    yield _weights("one step", (topk, 7), steps=1)
    net = nets.residual()
    traced = graph.trace(net, nets.example("residual"))
    halves = tuple(Term(g, rows, max(g.shape[0] // 2, 1), True) for g in traced.groups)
    fc = next(s for s in traced.sites if s.name == "fc.weight")
    yield _net("channels", net, traced, (*halves, Term(fc, topk, 6, True)))
    yield _net("channels alone", net, traced, halves)
    joint = _joint()
    net, traced = nets.mlp(), graph.trace(nets.mlp(), nets.example("mlp"))
    at = {s.name: (s.n // 3, 4) for s in traced.sites if s.op == "linear"}
    terms = tuple(Term(s, joint, at[s.name], True) for s in traced.sites if s.name in at)
    supports, _ = feasible.support_only(terms, at)  # as a run asks: values come after the approach
    yield _net("joint sets", net, traced, supports)


def _joint() -> Constraint:
    from secateur.recipe import build_constraint

    return build_constraint(["topk", "codebook"])


def _weights(label: str, *sets: tuple[Constraint, Level], steps: int = STEPS) -> Case:
    g = torch.Generator().manual_seed(len(label))
    start = {f"w{i}": torch.randn(4, 8, generator=g) for i in range(len(sets))}
    sites = {k: Site(k, "linear", (4, 8), (Member(k),)) for k in start}
    terms = tuple(Term(sites[f"w{i}"], c, level, True) for i, (c, level) in enumerate(sets))
    return Case(label, start, terms, _pull(start, g), steps=steps)


def _net(label: str, net: torch.nn.Module, traced: graph.Traced, terms: tuple[Term, ...]) -> Case:
    start = {k: p.detach().clone() for k, p in net.named_parameters()}
    return Case(label, start, terms, _pull(start, torch.Generator().manual_seed(0)), traced, _NET_STEPS)


def _pull(start: Weights, g: torch.Generator) -> Callable[[str, Tensor], Tensor]:
    """The gradient of 1/2 sum c (w - best)^2, the best near the start."""
    best = {k: w + 0.3 * torch.randn(w.shape, generator=g) for k, w in start.items()}
    c = {k: 0.5 + torch.rand(w.shape, generator=g) for k, w in start.items()}
    return lambda name, w: c[name] * (w - best[name])


def slope(solver: Solver, problem: Problem, state: Any) -> dict[str, Tensor]:
    """The gradient of the solver's penalty; zero where it has none."""
    penalty = solver.penalty(state)
    zero = {k: torch.zeros_like(w) for k, w in problem.params.items()}
    if not isinstance(penalty, Tensor) or not penalty.requires_grad:
        return zero
    found = torch.autograd.grad(penalty, list(problem.params.values()), allow_unused=True)
    return {k: zero[k] if g is None else g for k, g in zip(zero, found, strict=True)}


def resumes(solver: Solver, case: Case) -> None:
    """Stopped after any step and taken up by a fresh state, a run goes on to the bit."""
    whole, state, seen = case.problem(), None, []
    for n in range(case.steps + 1):
        state = solver.init(whole) if state is None else case.run(solver, whole, state, 1)
        tensors, facts = state.state_dict()
        saved = {k: v.clone() for k, v in tensors.items()}, json.dumps(facts)
        seen.append((n, {k: p.detach().clone() for k, p in whole.params.items()}, saved))
    said = _said(solver, state)
    for n, weights, (tensors, facts) in seen:
        again = case.problem()
        fresh = solver.init(again)
        with torch.no_grad():
            for k, w in weights.items():
                again.params[k].copy_(w)
        fresh.load_state_dict({k: v.clone() for k, v in tensors.items()}, json.loads(facts))
        fresh = case.run(solver, again, fresh, case.steps - n)
        where = f"{solver}, {case}: stopped after step {n} of {case.steps}"
        theirs = _said(solver, fresh)
        for what, value in said.items():
            assert _same(value, theirs[what]), f"{where}, {what} differs at the end"


def _said(solver: Solver, state: Any) -> dict[str, Any]:
    """All that a state and its answer say."""
    with torch.no_grad():
        said = {"span": state.span, "numbers": state.numbers(), "tracked": _copied(state.tracked())}
        said |= {"candidate": state.candidate(said["tracked"]), "round_changed": state.round_changed}
        answer = solver.finish(state)
    said |= {f"point {i}": {"weights": p.weights, "levels": p.levels} for i, p in enumerate(answer.points)}
    return said | {"weights": answer.weights, "levels": answer.levels, "residuals": answer.residuals}


def _copied(tensors: Weights) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in tensors.items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)


def feasible_at_the_end(solver: Solver, case: Case) -> None:
    """The answer is at the final levels, a member of every set, and without what must go with removed channels.

    So is each of its points at its own levels.
    """
    problem = case.problem()
    before = {k: w.clone() for k, w in case.start.items()}
    state = case.run(solver, problem, solver.init(problem), case.steps)
    with torch.no_grad():
        answer = solver.finish(state)
    said = f"{solver}, {case}"
    assert answer.levels == {t.site.name: t.level for t in case.terms}, f"{said}: ends at {answer.levels}"
    for point in (*answer.points, answer):
        assert point.weights.keys() == problem.params.keys(), f"{said}: answers other parameters than were asked"
        outside = feasible.contains(case.terms, point.levels, point.weights)
        assert not outside, f"{said}: {outside} are no members at {point.levels}"
        for name, kept in (problem.companions(point.weights) if problem.companions else {}).items():
            assert not bool(point.weights[name][~kept].any()), f"{said}: {name} goes on where its channel is gone"
        for name, w in point.weights.items():
            assert bool(w.isfinite().all()), f"{said}: {name} is not finite"
    assert _same(before, dict(case.start)), f"{said}: changes more than problem.params"


def pure_on_the_way(solver: Solver, case: Case) -> None:
    """Looking at a state changes nothing; its round holds the step that comes; averages keep the structure."""
    problem = case.problem()
    state = solver.init(problem)
    for n in range(case.steps):
        start, length = state.span
        assert start <= n < start + length, f"{solver}, {case}: the round {state.span} does not hold step {n}"
        live, saved = _copied(problem.params), _copied(state.state_dict()[0])
        with torch.no_grad():
            tracked = _copied(state.tracked())
            first, second = state.candidate(tracked), state.candidate(tracked)
        assert _same(live, _copied(problem.params)), f"{solver}, {case}, step {n}: looking at the state moves weights"
        assert _same(first, second), f"{solver}, {case}, step {n}: the same candidate, other bits"
        assert _same(tracked, _copied(state.tracked())), f"{solver}, {case}, step {n}: candidate() changes its input"
        assert _same(saved, _copied(state.state_dict()[0])), f"{solver}, {case}, step {n}: looking changes the state"
        state = case.run(solver, problem, state, 1)


def penalty_and_its_gradient(solver: Solver, case: Case) -> None:
    """The penalty's gradient is that of finite differences along a random direction."""
    problem = case.problem()
    exact = replace(problem, params={k: p.detach().double().requires_grad_() for k, p in problem.params.items()})
    state = case.run(solver, exact, solver.init(exact), case.steps // 2)
    g = torch.Generator().manual_seed(1)
    way = {k: torch.randn(p.shape, generator=g, dtype=torch.float64) for k, p in exact.params.items()}
    found = sum(float((slope(solver, exact, state)[k] * d).sum()) for k, d in way.items())

    def at(step: float) -> float:
        with torch.no_grad():
            for k, p in exact.params.items():
                p += step * way[k]
            value = float(solver.penalty(state))
            for k, p in exact.params.items():
                p -= step * way[k]
        return value

    measured = (at(1e-3) - at(-1e-3)) / 2e-3
    close = abs(found - measured) <= 1e-6 * max(abs(found), abs(measured), 1e-3)
    assert close, f"{solver}, {case}: the penalty's slope is {found}, finite differences say {measured}"


def points_nest(solver: Solver, case: Case) -> None:
    """`Solution.points`: each support lies in that of the point before, the answer's in the last one's."""
    problem = case.problem()
    state = case.run(solver, problem, solver.init(problem), case.steps)
    with torch.no_grad():
        answer = solver.finish(state)
    held = {m.param for t in case.terms for m in t.site.members}
    for looser, tighter in pairwise((*answer.points, answer)):
        beside = [k for k in sorted(held) if bool(((tighter.weights[k] != 0) & (looser.weights[k] == 0)).any())]
        said = f"{solver}, {case}: {tighter.levels} after {looser.levels}"
        assert not beside, f"{said}: the support of {beside} is not inside the looser point's"


LAWS = (feasible_at_the_end, points_nest, pure_on_the_way, penalty_and_its_gradient, resumes)


def never_worse_than_one_shot(solver: Solver) -> None:
    """On convex quadratics with a coupled Hessian, from their optimum and with as many steps in all, a solver's mean is
    no worse than that of projection with masked retraining.

    From an optimum chance finds nothing better than the largest weights: whoever draws supports must be better than
    one drawn support.
    """
    ours = sum(_reached(solver, seed) for seed in range(_DRAWS)) / _DRAWS
    one_shot, drawn = catalog.load("solvers", "one_shot")(), solver.by_chance
    theirs = sum(_reached(one_shot, seed, drawn) for seed in range(_DRAWS)) / _DRAWS
    what = "a drawn support" if drawn else "one-shot"
    assert ours <= theirs * (1 + 1e-9), f"{solver}: reaches {ours:.4g} on quadratics, {what} {theirs:.4g}"


def _kept_of_unknowns() -> list[Term]:
    """Some single weights of a row may stay; the same set once more, for those who take blocks alone."""
    site = Site("w", "linear", (1, _UNKNOWNS), (Member("w"),))
    single = (catalog.load("constraints", "topk")(), catalog.load("constraints", "blocks")(rows=1))
    return [Term(site, own, _KEPT, True) for own in single]


def _reached(solver: Solver, seed: int, drawn: bool = False) -> float:
    """1/2 (w - best) H (w - best) of the answer, retrained in its support, over what is lost when all goes.

    Args:
        drawn: the importance of weights is such that every support is as likely as any other.
    """
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(_UNKNOWNS, _UNKNOWNS, generator=g, dtype=torch.float64)
    hessian = a @ a.T / _UNKNOWNS + 0.05 * torch.eye(_UNKNOWNS, dtype=torch.float64)
    hessian = hessian / torch.linalg.eigvalsh(hessian).max() * _STEEPEST
    best = torch.randn(1, _UNKNOWNS, generator=g, dtype=torch.float64)
    terms = _kept_of_unknowns()
    term = next((t for t in terms if not solver.refuses(t)), terms[0])
    case = Case(
        "quadratic", {"w": best}, (term,), lambda name, w: (w - best) @ hessian, steps=_TRAINED, lr=1 / _STEEPEST
    )
    moment = hessian.diagonal().reshape(1, -1) / _EXAMPLES
    chance = torch.rand(best.shape, generator=g, dtype=torch.float64) / best.square()
    problem = replace(
        case.problem(),
        importance=lambda: {"w": chance if drawn else None},
        statistics=lambda site, name: moment if name == "second_moment" else case.statistic(site, name),
        examples=_EXAMPLES,
    )
    state = case.run(solver, problem, solver.init(problem), _TRAINED)
    with torch.no_grad():
        answer = solver.finish(state)
        held, w = Frozen((term,), answer.levels, answer.weights), answer.weights
        for _ in range(_TRAINED):
            w["w"] -= case.lr * (w["w"] - best) @ hessian
            held.apply_(w)
    gap = w["w"] - best
    return float((gap @ hessian @ gap.T) / (best @ hessian @ best.T))
