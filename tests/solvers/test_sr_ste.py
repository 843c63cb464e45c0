"""SR-STE against its formula: who moves, who decays, and that the support settles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.constraints.nm import NM
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers.sr_ste import SrSte
from secateur.training.phases import Approach
from secateur.types import Member, Site


def problem(start: Tensor, steps: int) -> Problem:
    """Two of four weights may stay."""
    site = Site("w", "linear", tuple(start.shape), (Member("w"),))
    w = start.clone().requires_grad_()
    return Problem({"w": w}, (Term(site, NM(), 2, True),), lambda weights, h, t: {"w": 2}, steps)


def step(solver: SrSte, p: Problem, state: Any, gradient: Tensor, lr: float) -> Any:
    """Gradient descent on the loss and the penalty."""
    (slope,) = torch.autograd.grad(solver.penalty(state), p.params["w"])  # type: ignore[arg-type]
    with torch.no_grad():
        p.params["w"] -= lr * (gradient + slope)
        return solver.step(state)


def test_a_step_by_hand() -> None:
    p, solver = problem(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), 10), SrSte(decay=0.2)
    with torch.no_grad():
        state = solver.init(p)
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    assert solver.penalty(state).item() == 0.0  # type: ignore[union-attr]
    state = step(solver, p, state, torch.full((1, 4), 0.1), 0.5)
    # The kept ones lose lr g, the pruned ones lr (g + decay w).
    torch.testing.assert_close(state.tracked()["w"], torch.tensor([[3.95, 2.95, 1.75, 0.85]]))
    assert p.params["w"][0, 2:].tolist() == [0.0, 0.0]
    state = step(solver, p, state, torch.tensor([[0.0, 4.0, -1.0, 0.0]]), 0.5)
    assert (p.params["w"] != 0).tolist() == [[True, False, True, False]]  # one came back


def flips(decay: float) -> tuple[int, float]:
    """Changes of the support in the last quarter of noisy descent, and the loss at the end."""
    g = torch.Generator().manual_seed(0)
    best, c = torch.randn(8, 16, generator=g), 1e-3 * (0.5 + torch.rand(8, 16, generator=g))
    p, solver = problem(best, 200), SrSte(decay=decay)
    with torch.no_grad():
        state = solver.init(p)
    n, before = 0, p.params["w"] != 0
    for i in range(200):
        gradient = c * (p.params["w"].detach() - best + 0.3 * torch.randn(8, 16, generator=g))
        state = step(solver, p, state, gradient, 300.0)
        n += int((before != (p.params["w"] != 0)).sum()) if i >= 150 else 0
        before = p.params["w"] != 0
    with torch.no_grad():
        w = solver.finish(state).weights["w"]
    return n, float((c * (w - best).square()).sum())


def test_the_decay_lets_the_support_settle() -> None:
    (loose, worse), (settled, better) = flips(0.0), flips(2e-3)
    assert settled < 0.5 * loose
    assert better <= worse


def test_the_meter_counts_what_comes_and_goes() -> None:
    p, solver = problem(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), 10), SrSte(decay=0.0)
    with torch.no_grad():
        state = solver.init(p)
    assert state.numbers()["sad"] == 0.0
    state = step(solver, p, state, torch.tensor([[0.0, 4.0, 0.0, 0.0]]), 0.5)  # 3.0 -> 1.0: one goes, one comes
    assert state.numbers()["sad"] == 2 / 4 / 50
    state = step(solver, p, state, torch.zeros(1, 4), 0.5)
    assert state.numbers()["sad"] == pytest.approx(2 / 4 / 50 * 49 / 50)


def test_averages_follow_the_latent_weights() -> None:
    p = problem(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), 2)
    with torch.no_grad():
        phase = Approach(SrSte(), p)
        assert phase.tracked()["w"].tolist() == [[4.0, 3.0, 2.0, 1.0]]
        assert phase.candidate({"w": torch.ones(1, 4)})["w"].tolist() == [[1.0, 1.0, 0.0, 0.0]]
        phase.close()
        assert phase.tracked()["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="decay"):
        SrSte(decay=-1.0)
