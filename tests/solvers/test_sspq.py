"""Pruned and rounded from the first step: the grid by hand, straight through, and a mask that is fixed early."""

from __future__ import annotations

import pytest
import torch
from tests.solvers.small import problem, step

from secateur.errors import UsageError
from secateur.solvers.sspq import Sspq, rounded


def test_the_grid_by_hand() -> None:
    w = torch.tensor([[3.0, -1.4, 0.4], [0.0, 0.0, 0.0]])
    assert rounded(w, 3).tolist() == [[3.0, -1.0, 0.0], [0.0, 0.0, 0.0]]  # top 3, scale 1
    fine = rounded(w, 8)
    assert bool(((fine - w).abs() <= 3.0 / 127 / 2 + 1e-6).all())


def test_both_act_at_once_and_steps_go_straight_through() -> None:
    start = torch.tensor([[3.0, 2.4, 1.4, 0.6]])
    p, solver = problem(start, 2, 20), Sspq(bits=3, every=1)
    with torch.no_grad():
        state = solver.init(p)
    assert p.params["w"].tolist() == [[3.0, 2.0, 1.0, 1.0]]  # rounded before any step
    state = step(solver, p, state, torch.tensor([[0.0, -2.0, 0.0, 0.0]]))
    torch.testing.assert_close(state.latent["w"], torch.tensor([[3.0, 2.6, 1.4, 0.6]]))
    torch.testing.assert_close(p.params["w"].detach(), torch.tensor([[3.0, 3.0, 0.0, 0.0]]))
    torch.testing.assert_close(state.candidate(state.tracked())["w"], p.params["w"].detach())


def test_the_mask_is_fixed_after_its_share() -> None:
    start = torch.tensor([[3.0, 2.4, 1.4, 0.6]])
    p, solver = problem(start, 2, 8), Sspq(every=1, ramp=0.5)
    state = solver.init(p)
    for i in range(8):
        # Before the mask is fixed the third weight cannot grow, for it is not shown; the second one shrinks at the end.
        state = step(solver, p, state, torch.tensor([[0.0, 0.0 if i < 4 else 5.0, -5.0, 0.0]]))
    assert (p.params["w"] != 0).tolist() == [[True, True, False, False]]
    answer = solver.finish(state).weights["w"]
    assert torch.equal(answer, rounded(answer, 8))


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="bits=1"):
        Sspq(bits=1)
