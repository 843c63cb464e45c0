"""Random search: the best of some supports that chance draws, the neutral baseline of every way to choose one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from secateur.contracts import TRIAL, Problem, Term
from secateur.errors import UsageError
from secateur.solvers._at_once import AtOnce
from secateur.solvers._state import State
from secateur.terms import views
from secateur.terms.live import project_live
from secateur.types import Stage


@dataclass(frozen=True)
class RandomSearch(AtOnce):
    """The support with the least training loss of `draws` random ones, then masked retraining.

    Levels are those of one-shot: as many weights stay at every site, and which ones is drawn, uniformly among units of
    one size (a set's units at the edges of a matrix may be smaller; they stay less often). Weights that cannot matter
    give their place to others, as everywhere. The loss is `Problem.trial`: before any retraining, on batches that are
    the same for all draws. It falls by chance as draws grow (about by sqrt(2 ln n) standard deviations), so that only
    what retraining makes of it tells something; a method that is no better than this one has found nothing.

    Args:
        draws: supports tried; 1 is a random support, without a search.
    Reference: Farahani 2024, arXiv:2403.08265, which draws nodes of an untrained network; here the weights are trained
        and the units are those of the set.
    """

    draws: int = 100
    by_chance: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({TRIAL})
    reference: ClassVar[str] = "Farahani 2024, arXiv:2403.08265"

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UsageError(f"solver random_search: draws={self.draws}; draws >= 1 needed")

    def refuses(self, term: Term) -> str | None:
        """What has no support to draw: products of factors, values alone."""
        support = term.constraint.before(Stage.VALUES, None)
        plain = support is not None and support[0].stage == Stage.SUPPORT
        return None if plain else f"random_search draws which weights stay, and {term.constraint.name} keeps them all"

    def init(self, problem: Problem) -> State:
        """Draw, try, and take the best."""
        assert problem.trial is not None, "asked for in `needs`"
        state, g = State(problem), torch.Generator().manual_seed(problem.seed)
        levels, near = state.project(1.0)
        live, best = state.live, float("inf")
        for _ in range(self.draws):
            h = {t.site.name: _chance(views.matrix(t.site, t.constraint.view, live), g) for t in problem.terms}
            there = (problem.terms, lambda w, h, t: levels, live, h, 1.0, problem.effective, problem.companions)
            drawn = project_live(*there)[1]
            if (loss := problem.trial(drawn)) < best:
                best, near = loss, drawn
        state.levels = levels
        state.show(near)
        state.freeze(state.live)
        return state


def _chance(weight: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """The importance with which every weight scores a draw from (0, 1); zeros score nothing."""
    drawn = 1.0 - torch.rand(weight.shape, generator=g, dtype=torch.float64)
    return torch.where(weight == 0, 0.0, drawn.to(weight.device) / weight.double().square().clamp(min=1e-290))
