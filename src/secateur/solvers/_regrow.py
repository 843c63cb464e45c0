"""Supports that change while their levels stay: the weakest units give way, others come in their place.

Any set of supports decides by its own projection what can stand together: nothing here knows what a unit is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secateur.contracts import Constraint, Problem, Term
from secateur.solvers._state import State
from secateur.terms import views
from secateur.terms.live import project_live
from secateur.types import Level, Stage

# What stays outranks all that may come: its square against the sum of squares <= 1 of the largest unit.
_SURE, _LEAST = 1e4, 1e-6
_TRIES, _CLOSE = 10, 0.02  # projections until the share that gives way is this near to what is asked
_EVERY, _UPDATES = 100, 10  # steps between two updates; and fewer where a way would hold less than ten of them


@dataclass
class Support(State):
    """The live weights inside a support that changes.

    Attributes:
        churn: the share of the support that the last update changed.
        gradients: dense, a running mean, where a solver asks for it.
    """

    churn: float = 0.0
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def shade(self, memory: int = 0) -> None:
        """No gradient outside the support, so that an optimizer's moments there are zero when a weight comes back.

        Args:
            memory: steps over which the gradients as they were are averaged, for `gradients`; 0: they are not.
        """
        grads = {k: p.grad for k, p in self.problem.params.items() if p.grad is not None}
        held = self.held()
        for k, g in grads.items():
            if k in held and memory:
                self.gradients[k] = self.gradients.get(k, torch.zeros_like(g)).lerp(g, 1 / memory)
            if k in held:
                g.masked_fill_(~held[k], 0.0)

    def held(self) -> dict[str, Tensor]:
        """Bool per parameter that a term holds: the support, units whole."""
        return {} if self.frozen is None else {k: mask != 0 for k, mask in self.frozen.masks.items()}

    def swap(self, strengths: Mapping[str, Tensor], part: float, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`part` of the support, the weakest units, gives way to the units with the best scores; these may be the same.

        What comes has the value it had: zero, or its own where it went in this very update.

        Args:
            strengths, scores: >= 0, per parameter that a term holds.
        Returns:
            Bool per parameter: what stayed.
        """
        before = self.held()
        stayed = survivors(self.problem.terms, self.levels, before, strengths, part)
        self.fill(stayed, scores)
        return stayed

    def fill(self, kept: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        """The support becomes what is `kept`, and, as far as the levels allow, the units with the best scores."""
        before = self.held()
        self.freeze({**self.live, **filled(self.problem, self.levels, kept, scores)})
        self.hold()
        after = self.held()
        new = sum(int((after[k] & ~before[k]).sum()) for k in after.keys() & before.keys())
        self.churn = new / max(sum(int(m.sum()) for m in after.values()), 1)

    def numbers(self) -> dict[str, float]:
        """How much the last update changed."""
        return {**super().numbers(), "mask_churn": self.churn}


def filled(
    problem: Problem, levels: Mapping[str, Level], kept: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Members at these levels whose support is what is `kept` and, as far as it goes, the units with the best scores.

    Args:
        kept: bool per parameter that a term holds; members themselves.
        scores: the same parameters; below zero: never. Units go by sums of squares.
    Returns:
        The parameters that a term acts on; their values say nothing.
    """
    most = max((float(s.max()) for s in scores.values() if s.numel()), default=0.0)
    worth = {k: w.detach() for k, w in problem.params.items()}
    for k, stays in kept.items():
        # Where no gradient comes at all, units still fill their level: the order decides.
        score = (scores[k] / (most or 1.0)).clamp(min=_LEAST).masked_fill(scores[k] < 0, 0.0)
        worth[k] = score.masked_fill(stays, _SURE).to(worth[k].dtype)
    how = (1.0, problem.effective, problem.companions)
    return project_live(problem.terms, lambda w, h, t: dict(levels), worth, {}, *how)[1]


def survivors(
    terms: tuple[Term, ...],
    levels: Mapping[str, Level],
    held: Mapping[str, Tensor],
    strengths: Mapping[str, Tensor],
    part: float,
) -> dict[str, Tensor]:
    """What of the support `held` stays when `part` of each site's weights, its weakest units, give way.

    An empty place is worth the same everywhere; a unit weaker than that gives way if the set has an empty place for
    it, and the worth is chosen so that the right share goes. Of single weights exactly floor(part nnz) go under top-k.
    """
    kept = {k: m.to(strengths[k].dtype) for k, m in held.items() if k in strengths}
    for term in terms:
        level, view = levels[term.site.name], term.constraint.view
        if level is None or part <= 0:
            continue
        there = views.matrix(term.site, view, kept) != 0
        stay = _stronger(term.constraint, level, there, views.matrix(term.site, view, strengths), part)
        kept |= views.write(term.site, view, kept, stay)
    return {k: m != 0 for k, m in kept.items()}


def _stronger(constraint: Constraint, level: Level, there: Tensor, strength: Tensor, part: float) -> Tensor:
    """`there` without its weakest units, so that about `part` of it goes."""
    ranked = strength[there].sort().values
    n, best = len(ranked), there
    want, miss = int(part * n), int(part * n)
    share, low, high = part, 0.0, 1.0
    for _ in range(_TRIES if want else 0):
        at = min(int(share * n), n - 1)
        worth = (ranked[max(at - 1, 0)] + ranked[at]) / 2
        near = constraint.project(torch.where(there, strength, worth), level)
        stay = there & (constraint.mask(near, level) != 0)
        gone = n - int(stay.sum())
        if abs(gone - want) < miss:
            best, miss = stay, abs(gone - want)
        if miss <= _CLOSE * want:
            break
        low, high = (share, high) if gone < want else (low, share)
        share = (low + high) / 2
    return best


def period(every: int | None, steps: float) -> int:
    """Steps between two updates: as asked, else 100, and fewer where `steps` would hold less than ten of them."""
    return every or max(min(_EVERY, int(steps) // _UPDATES), 1)


def not_free(solver: str, term: Term) -> str | None:
    """Why no unit of the term can come back; None: it can."""
    support = term.constraint.before(Stage.VALUES, None)
    if support is not None and support[0].stage != Stage.SUPPORT:
        return f"{solver} lets zeros come back and needs a set of supports, which {term.constraint.name} is not"
    if term.site.op == "channels":
        return (
            f"{solver} lets zeros come back, and a removed channel cannot: its norms and biases went with it, so that "
            "no gradient reaches it"
        )
    return None
