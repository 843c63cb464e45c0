"""Attention that becomes binary: an exact gradient, and nothing left to jump when the mask settles."""

from __future__ import annotations

import torch
from tests.solvers.small import problem, step

from secateur.solvers.abp import Abp

START = torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
BEST = torch.tensor([[3.5, 1.0, 2.5, 1.0]], dtype=torch.float64)


def test_the_net_shows_the_attention_and_scores_go_down_the_exact_gradient() -> None:
    p, solver = problem(START, 2, 10), Abp(rate=0.01, every=1)
    state = step(solver, p, solver.init(p), torch.zeros_like(START))
    gates = solver.gates(state)["w"]
    torch.testing.assert_close(p.params["w"].detach(), state.latent["w"] * gates)
    assert bool((gates[0, :2] > 0.5).all())
    assert bool((gates[0, 2:] < 0.5).all())
    m, s = state.beyond()["w"].requires_grad_(), 10.0 ** (1 / 7.5)
    loss = 0.5 * (state.latent["w"] * (0.5 + 0.5 * (s * m).tanh()) - BEST).square().sum()
    (slope,) = torch.autograd.grad(loss, m)
    gains = state.latent["w"] * (BEST - p.params["w"].detach())
    before = state.learned["w"]
    state = step(solver, p, state, p.params["w"].detach() - BEST)
    moved = state.learned["w"] - before
    torch.testing.assert_close(moved, -0.001 * slope / gains.square().mean().sqrt())


def test_weights_behind_move_as_far_as_they_are_shown() -> None:
    p, solver = problem(START, 2, 10), Abp(every=1)
    state = step(solver, p, solver.init(p), torch.zeros_like(START))
    gates, before = solver.gates(state)["w"], state.latent["w"].clone()
    state = step(solver, p, state, torch.ones_like(START), 0.5)
    torch.testing.assert_close(state.latent["w"], before - 0.5 * gates)


def test_attention_hardens_into_the_mask() -> None:
    p, solver = problem(START, 2, 20), Abp(every=1, sharpness=30.0)
    state, softest = solver.init(p), []
    for _ in range(14):
        state = step(solver, p, state, torch.zeros_like(START))
        gates = solver.gates(state)["w"]
        softest.append(float(torch.minimum(gates, 1 - gates).max()))
    assert softest[-1] < 1e-3 < softest[0]
    for _ in range(6):
        state = step(solver, p, state, torch.zeros_like(START))
    assert p.params["w"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
