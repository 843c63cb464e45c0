"""Meta-ticket: an episode by hand, what stands still and what comes back, the ticket's training, sinusoids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.solvers.one_weight import problem, step
from torch import Tensor

from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers.meta_ticket import MetaTicket
from secateur.types import Member, Site

START = torch.tensor([[4.0, 3.0, 2.0, 1.0]])


def test_an_episode_by_hand() -> None:
    """W' = W - alpha g under the mask; m learns -g W' of the next batch; the weights go back."""
    solver = MetaTicket(rate=8.0, alpha=0.1, every=1, ramp=0.1, settle=0.8)
    p = problem(START, TopK(), 2, 20)  # 8 episodes
    state = solver.init(p)
    for _ in range(2):
        state = step(solver, p, state, torch.zeros(1, 4), 9.0)
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    state = step(solver, p, state, torch.tensor([[10.0, -10.0, 10.0, 10.0]]), 9.0)  # the optimizer's rate says nothing
    assert p.params["w"].tolist() == [[3.0, 4.0, 0.0, 0.0]]
    assert state.latent["w"].tolist() == [[3.0, 4.0, 2.0, 1.0]]
    assert state.tracked()["w"].tolist() == START.tolist()
    state = step(solver, p, state, torch.tensor([[-1.0, 1.0, -2.0, 3.0]]), 9.0)
    gain = torch.tensor([[3.0, -4.0, 4.0, -3.0]])
    torch.testing.assert_close(state.learned["w"], gain / gain.square().mean().sqrt())  # 8 / 8 episodes
    assert p.params["w"].tolist() == [[4.0, 0.0, 2.0, 0.0]]  # what was pruned has learned too


def test_the_ticket_is_trained_from_the_weights_that_stood_still() -> None:
    solver = MetaTicket(rate=0.0, inner=2, every=1, settle=0.5)
    p = problem(START, TopK(), 2, 20)
    bias = torch.tensor([1.0], requires_grad=True)
    p = replace(p, params={**p.params, "bias": bias})
    state, slope = solver.init(p), torch.full((1, 4), 0.1)
    for n in range(10):  # three episodes and a step of a fourth
        assert state.span == (0, 10)
        bias.grad = torch.ones(1)
        state = step(solver, p, state, slope, 1.0)
        assert bias.item() == pytest.approx(1.0 - 0.3 * ((n + 1) % 3 if n < 9 else 0))
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]  # a mask that has learned nothing is the projection
    assert state.round_changed
    assert state.span == (10, 10)
    for _ in range(10):
        state = step(solver, p, state, slope, 1.0)
    torch.testing.assert_close(p.params["w"].detach(), torch.tensor([[3.0, 2.0, 0.0, 0.0]]))
    torch.testing.assert_close(state.tracked()["w"], p.params["w"].detach())
    with torch.no_grad():
        torch.testing.assert_close(solver.finish(state).weights["w"], torch.tensor([[3.0, 2.0, 0.0, 0.0]]))


def test_a_search_that_is_cut_short_answers_the_mask_on_the_weights_that_stood_still() -> None:
    solver, p = MetaTicket(alpha=1.0), problem(START, TopK(), 2, 20)
    state = step(solver, p, solver.init(p), torch.full((1, 4), 0.5), 1.0)
    assert p.params["w"].tolist() == [[3.5, 2.5, 1.5, 0.5]]
    with torch.no_grad():
        assert solver.finish(state).weights["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]


class Sinusoids:
    """Tasks sin(2 x + phase), phases of a quarter turn, for a net of 1, 32, 32 and 1 units with two masks."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self.draws = torch.Generator().manual_seed(1)
        shapes = {"w1": (32, 1), "w2": (32, 32), "w3": (1, 32), "b1": (32,)}
        self.start = {k: torch.randn(s, generator=g) * (2 / s[-1]) ** 0.5 for k, s in shapes.items()}
        self.kept = {"w2": 200, "w3": 8}

    def problem(self, steps: int) -> Problem:
        terms = tuple(
            Term(Site(k, "linear", tuple(self.start[k].shape), (Member(k),)), TopK(), n, True)
            for k, n in self.kept.items()
        )

        def levels(weights: Any, h: Any, tightness: float) -> dict[str, Any]:
            return {t.site.name: t.constraint.at_tightness(t.site.shape, t.level, tightness) for t in terms}

        return Problem({k: w.clone().requires_grad_() for k, w in self.start.items()}, terms, levels, steps)

    def task(self, batches: int) -> list[tuple[Tensor, Tensor]]:
        phase = 1.57 * torch.rand(1, generator=self.draws)
        xs = [4 * torch.rand(20, 1, generator=self.draws) - 2 for _ in range(batches)]
        return [(x, (2 * x + phase).sin()) for x in xs]

    @staticmethod
    def loss(w: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden = (batch[0] @ w["w1"].T + w["b1"]).relu()
        return (((hidden @ w["w2"].T).relu() @ w["w3"].T - batch[1]) ** 2).mean()

    def adapted(self, masks: dict[str, Tensor], alpha: float) -> float:
        """The mean loss on new batches of 100 tasks after a step on one batch of each."""
        self.draws.manual_seed(2)
        lost = 0.0
        for _ in range(100):
            first, second = self.task(2)
            w = {k: (v * masks.get(k, torch.ones(()))).requires_grad_() for k, v in self.start.items()}
            grads = torch.autograd.grad(self.loss(w, first), list(w.values()))
            moved = {
                k: v - alpha * g * masks.get(k, torch.ones(())) for (k, v), g in zip(w.items(), grads, strict=True)
            }
            lost += self.loss(moved, second).item() / 100
        return lost


def ticket(nets: Sinusoids, inner: int) -> dict[str, Tensor]:
    """The masks that 180 episodes learn, each of batches of one task."""
    solver = MetaTicket(rate=8.0, inner=inner, alpha=0.2, every=1, ramp=0.1, settle=0.9)
    p = nets.problem(200 * (inner + 1))
    state = solver.init(p)
    for _ in range(180):
        for batch in nets.task(inner + 1):
            for w in p.params.values():
                w.grad = None
            nets.loss(p.params, batch).backward()
            with torch.no_grad():
                solver.before_step(state)
                state = solver.step(state)
    assert state.frozen is not None
    return {k: (state.frozen.masks[k] != 0).float() for k in nets.kept}


def test_sinusoids_want_episodes() -> None:
    """Better after a step than random masks of the same layers, and than a mask that was learned without the step."""
    learned, without = (ticket(Sinusoids(), inner) for inner in (1, 0))
    nets, chance, drawn = Sinusoids(), torch.Generator().manual_seed(3), []
    assert {k: int(m.sum()) for k, m in learned.items()} == nets.kept
    for _ in range(5):
        places = {k: torch.randperm(m.numel(), generator=chance) for k, m in learned.items()}
        drawn.append(nets.adapted({k: m.flatten()[places[k]].view_as(m) for k, m in learned.items()}, 0.2))
    assert nets.adapted(learned, 0.2) < 0.92 * min(drawn)
    assert nets.adapted(learned, 0.2) < 0.9 * nets.adapted(without, 0.2)


def test_refusals_and_options() -> None:
    fc = Site("fc.weight", "linear", (4, 8), (Member("fc.weight"),))
    assert str(MetaTicket().refuses(Term(fc, LowRank()))).startswith("a learned mask chooses which weights stay")
    with pytest.raises(UsageError, match="solver meta_ticket: inner=-1"):
        MetaTicket(inner=-1)
    with pytest.raises(UsageError, match="solver meta_ticket: rate=-1"):
        MetaTicket(rate=-1.0)
