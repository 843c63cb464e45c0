"""AST: several levels of one set of weights, trained by turns at the price of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from secateur import schedules
from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._regrow import filled, not_free, period, survivors
from secateur.solvers._state import State
from secateur.terms.frozen import Frozen
from secateur.types import Level, Solution, Stage


@dataclass(frozen=True)
class AST(Solver):
    """Alternating sparse training: step t shows and trains level t mod n of n nested levels; none takes extra steps.

    Levels lie at the tightness values of `points` and at 1. All start dense and tighten along 1 - (1 - t)^3 in the
    first `ramp` of the steps. At an update each level takes the largest weights inside the level before it; then a
    part of them, the smallest, gives way to the largest gradients there (RigL's exchange), a part that falls along
    half a cosine from `part` to 0. Between two steps of a turn gradients that disagree are corrected: g loses what
    points against the step before, on its own support, tensor by tensor:
    if <g, g'> < 0, g <- g - <g, g'> / |g'|^2 g', with g' the last gradient inside the support of g.

    The paper's levels need not be nested; here they are, so that one file can hold them. The answer is the tightest
    level, the others are its points (`Solution.points`). Batch-norm statistics are measured for each where it is used.

    Args:
        points: tightness of the looser levels, rising, between 0 and 1; () = one level, single sparse training.
        every: steps between two updates; None: 100, and fewer where that would be less than ten updates.
        part: of each level that the first update exchanges.
        ramp: share of the steps in which the levels tighten.
    Reference: Lu et al., AST, NeurIPS 2022.
    """

    points: tuple[float, ...] = (0.5,)
    every: int | None = None
    part: float = 0.3
    ramp: float = 0.6
    reference: ClassVar[str] = "Lu et al., AST, NeurIPS 2022"

    def __post_init__(self) -> None:
        if not all(a < b for a, b in pairwise((0.0, *self.points, 1.0))):
            raise UsageError(f"solver ast: points={self.points}; rising numbers between 0 and 1 are needed")
        if (self.every is not None and self.every < 1) or not 0 <= self.part < 1 or not 0 < self.ramp <= 1:
            raise UsageError(
                f"solver ast: every={self.every}, part={self.part}, ramp={self.ramp}; every >= 1, 0 <= part < 1 and "
                "0 < ramp <= 1 needed"
            )

    def refuses(self, term: Term) -> str | None:
        """What is no support, coupled channels, and sets whose supports at two levels need not nest."""
        if why := not_free("ast", term):
            return why
        support = term.constraint.before(Stage.VALUES, None)
        if support is None or support[0].nests:
            return None
        return f"ast needs a set whose supports nest, which those of {term.constraint.name} need not"

    def init(self, problem: Problem) -> _State:
        """All levels are dense."""
        return _State(problem, n_levels=len(self.points) + 1)

    def before_step(self, state: _State) -> None:
        """Gradients of the level whose turn it is alone, corrected."""
        state.turn_gradients(look=self._share(state.problem, state.n + 1) is not None)

    def step(self, state: _State) -> _State:
        """Take up the level's step, tighten when it is time, show the next level."""
        state.take()
        state.advance()
        share = self._share(state.problem, state.n)
        if share is not None:
            part = self.part / 2 * (1 + math.cos(math.pi * share))
            state.tighten([schedules.cubic(share) * p for p in (*self.points, 1.0)], part)
        state.show(state.at(state.turn))
        return state

    def finish(self, state: _State) -> Solution:
        """The tightest level; the looser ones are its points."""
        if state.n < round(self.ramp * state.problem.total_steps) or not state.passed:
            state.tighten([*self.points, 1.0], 0.0)
        rungs = [
            Solution(state.at(i), {site: levels[i] for site, levels in state.passed.items()})
            for i in range(state.n_levels)
        ]
        state.show(rungs[-1].weights)
        return replace(state.solution(), levels=rungs[-1].levels, points=tuple(rungs[:-1]))

    def _share(self, problem: Problem, n: int) -> float | None:
        """The share of the ramp done at the update after step `n`; None where none comes."""
        end = round(self.ramp * problem.total_steps)
        due = n == end or n % period(self.every, end) == 0
        return n / end if 0 < n <= end and due else None


@dataclass
class _State(State):
    """The weights of all levels.

    Attributes:
        full: every parameter as the loosest level has it; what is outside the level whose turn it is waits here.
        depth: per constrained weight how many levels, counted from the loosest, hold it; none yet: dense.
        passed: per site its levels, from loose to tight.
        last: the gradient of the step before in this turn, corrected.
        gradients: of the step under way, dense and uncorrected, where an update comes.
    """

    unsaved: ClassVar[frozenset[str]] = State.unsaved | {"gradients", "n_levels"}

    n_levels: int = field(default=1, kw_only=True)
    full: dict[str, Tensor] = field(default_factory=dict)
    depth: dict[str, Tensor] = field(default_factory=dict)
    passed: dict[str, tuple[Level, ...]] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.full = self.full or {k: w.clone() for k, w in self.live.items()}

    @property
    def turn(self) -> int:
        """The level of the step that comes."""
        return self.n % self.n_levels

    def at(self, level: int, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies of all weights (None: the full ones), zero outside the level."""
        given = self.full if weights is None else weights
        return {
            k: w.masked_fill(self.depth[k] <= level, 0.0) if k in self.depth else w.clone() for k, w in given.items()
        }

    def turn_gradients(self, look: bool) -> None:
        """Restrict the gradients to the level, and take out what points against the step before."""
        grads = {k: p.grad for k, p in self.problem.params.items() if p.grad is not None}
        self.gradients = {k: g.clone() for k, g in grads.items()} if look else {}
        for k, g in grads.items():
            away = self.depth[k] <= self.turn if k in self.depth else None
            if away is not None:
                g.masked_fill_(away, 0.0)
            if k in self.last:
                before = self.last[k] if away is None else self.last[k].masked_fill(away, 0.0)
                g.copy_(agreeing(g, before))
        goes_on = self.turn + 1 < self.n_levels
        self.last = {k: g.clone() for k, g in grads.items()} if goes_on else {}

    def take(self) -> None:
        """The level's weights as the optimizer left them."""
        for k, now in self.live.items():
            waits = self.depth[k] <= self.turn if k in self.depth else None
            self.full[k] = now.clone() if waits is None else self.full[k].where(waits, now)

    def tighten(self, tightness: list[float], part: float) -> None:
        """New levels at these tightness values, each inside the one before, with a part exchanged by gradient."""
        p, inside, self.depth, self.passed = self.problem, self.full, {}, {}
        names = {m.param for t in p.terms for m in t.site.members}
        outer = {k: torch.ones_like(w, dtype=torch.bool) for k, w in inside.items() if k in names}
        for t in tightness:
            self.levels, near = self.project(t, inside)
            held = _masks(p, self.levels, {**inside, **near})
            if part > 0 and self.gradients:
                stayed = survivors(p.terms, self.levels, held, {k: w.abs() for k, w in inside.items()}, part)
                scores = {k: self.gradients[k].abs().masked_fill(~outer[k], -1.0) for k in held}
                held = _masks(p, self.levels, {**inside, **filled(p, self.levels, stayed, scores)})
            outer |= held  # a site that this level leaves dense is as the level before it
            self.depth = {k: self.depth.get(k, 0) + mask.to(torch.uint8) for k, mask in outer.items()}
            self.passed = {site: (*self.passed.get(site, ()), level) for site, level in self.levels.items()}
            inside = {k: w.masked_fill(~outer[k], 0.0) if k in outer else w for k, w in inside.items()}
        self.full = self.at(0)

    def tracked(self) -> dict[str, Tensor]:
        return self.full

    def candidate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tightest level."""
        return self.at(self.n_levels - 1, weights)


def agreeing(g: Tensor, before: Tensor) -> Tensor:
    """g without its part against `before`: <g, before> >= 0 afterwards."""
    along, size = (g * before).sum(), before.square().sum()
    return g - along / size * before if bool(along < 0) and bool(size > 0) else g


def _masks(problem: Problem, levels: Mapping[str, Level], members: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bool per parameter: the supports of members."""
    return {k: mask != 0 for k, mask in Frozen(problem.terms, levels, members).masks.items()}
