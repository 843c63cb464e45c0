"""Turbo-VBI: the Bayes factor against an integral, messages against all supports, clusters, who is pulled and goes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from tests.solvers.one_weight import problem, step
from torch import Tensor

from secateur.constraints.lowrank import LowRank
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers.turbo_vbi import TurboVBI, bayes_factor, beliefs
from secateur.types import Member, Site

STILL = {"rate": 0.0, "sigma": 1e-6, "every": 1}  # no width to speak of


def begun(start: Tensor, level: int, steps: int, solver: TurboVBI, **facts: object) -> tuple:
    p: Problem = replace(problem(start, TopK(), level, steps), **facts)
    with torch.no_grad():
        return p, solver.init(p)


@pytest.mark.parametrize("second", [0.0, 0.03, 1.0, 16.0])
def test_the_bayes_factor_is_a_ratio_of_integrals(second: float) -> None:
    rho = torch.logspace(-8, 5, 200_001, dtype=torch.float64)
    on, off = (torch.trapezoid(b * (-b * rho).exp() * rho.sqrt() * (-rho * second / 2).exp(), rho) for b in (1.0, 0.02))
    found = float(bayes_factor(torch.tensor(second, dtype=torch.float64), 0.02))
    assert found == pytest.approx(math.log(on / off), abs=1e-4)


def enumerated(evidence: Tensor, density: float, coupling: float) -> Tensor:
    """q(s = 1) by all supports: chains at rest along rows and columns, the density counted once a place."""
    both = density * (density + coupling * (1 - density))
    pair = {(1, 1): both, (0, 0): 1 - 2 * density + both, (0, 1): density - both, (1, 0): density - both}
    rows, cols = evidence.shape
    alone, total = (1 - density, density), torch.zeros_like(evidence)
    weight = 0.0
    for bits in product((0, 1), repeat=rows * cols):
        s = torch.tensor(bits).reshape(rows, cols)
        p = math.prod(alone[b] for b in bits) * math.exp(float((s * evidence).sum()))
        for a, b in ((s[:, :-1], s[:, 1:]), (s[:-1], s[1:])):
            p *= math.prod(
                pair[x, y] / alone[x] / alone[y]
                for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
            )
        total, weight = total + p * s, weight + p
    return total / weight


@pytest.mark.parametrize("coupling", [0.2, 0.8])
def test_messages_are_exact_on_a_chain(coupling: float) -> None:
    evidence = torch.tensor([[3.0, -0.5, 1.0, -4.0, -1.0, 2.0, 0.3]], dtype=torch.float64)
    want = enumerated(evidence, 0.3, coupling)
    for grid, whole in ((evidence, want), (evidence.T, want.T)):
        torch.testing.assert_close(beliefs(grid, 0.3, coupling), whole, rtol=0, atol=1e-3)


def test_messages_are_close_on_a_grid() -> None:
    evidence = 2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = enumerated(evidence, 0.3, 0.2)
    assert float((torch.sigmoid(evidence + math.log(0.3 / 0.7)) - want).abs().max()) > 0.05  # neighbours matter
    torch.testing.assert_close(beliefs(evidence, 0.3, 0.2), want, rtol=0, atol=0.01)


def test_without_evidence_or_without_coupling_messages_say_nothing() -> None:
    quiet = torch.zeros(5, 6, dtype=torch.float64)
    torch.testing.assert_close(beliefs(quiet, 0.1, 0.7), torch.full_like(quiet, 0.1))
    evidence = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(beliefs(evidence, 0.2, 0.0), (evidence - math.log(4.0)).sigmoid())


def test_planted_blocks_are_found_better_and_in_fewer_runs() -> None:
    g = torch.Generator().manual_seed(0)
    planted = torch.kron(torch.rand(16, 16, generator=g) < 0.2, torch.ones(4, 4, dtype=torch.bool))
    w = torch.where(planted, 1.0, 0.3) * torch.randn(planted.shape, generator=g)
    f1, runs = [], []
    for coupling in (0.0, 0.6):
        found = beliefs(bayes_factor(w.square(), 0.05), 0.2, coupling) > 0.5
        f1.append(2 * int((found & planted).sum()) / int(found.sum() + planted.sum()))
        runs.append(int((found[:, 1:] & ~found[:, :-1]).sum()))
    assert f1[1] > f1[0] + 0.1
    assert runs[1] < 0.7 * runs[0]


def test_what_lies_alone_is_pulled_harder_and_gives_way() -> None:
    start = torch.full((6, 8), 0.1)
    start[0:3, 0:3] = 1.0
    start[4, 6] = 1.1  # the largest of all
    solver = TurboVBI(kl=0.1, coupling=0.6, settle=0.5, **STILL)
    p, state = begun(start, 9, 20, solver)
    belief = state.belief["w"]
    assert float(belief[4, 6]) < 0.75 * float(belief[1, 1])
    for _ in range(9):
        state = step(solver, p, state, torch.zeros_like(start), 0.1)
    mean = state.mean["w"]
    assert float(mean[1, 1]) / 1.0 > float(mean[4, 6]) / 1.1 > float(mean[5, 0]) / 0.1
    state = step(solver, p, state, torch.zeros_like(start), 0.1)  # the support is chosen
    assert (state.mean["w"] != 0).tolist() == (start == 1.0).tolist()
    for _ in range(10):
        state = step(solver, p, state, torch.ones_like(start), 0.01)
    with torch.no_grad():
        assert (solver.finish(state).weights["w"] != 0).tolist() == (start == 1.0).tolist()


def test_means_settle_where_the_bound_is_least() -> None:
    """Loss h/2 (w - best)^2: h (best - mean) = kl E rho mean, with E rho of that mean."""
    best, h, kl = torch.tensor([[2.0, 2.0, 0.2, 0.2]]), 1.0, 0.1
    solver = TurboVBI(kl=kl, settle=1.0, sigma=1e-6, rate=0.0, every=20)
    p, state = begun(best, 2, 150, solver)
    for _ in range(149):
        state = step(solver, p, state, h * (p.params["w"].detach() - best), 0.1)
    mean, scale = state.mean["w"], float(best.square().mean().sqrt())
    on, half = state.belief["w"], (mean / scale).square() / 2
    tau = 1.5 * (on / (1 + half) + (1 - on) / (0.01 + half)) / scale**2
    torch.testing.assert_close(h * (best - mean), kl * tau * mean, rtol=1e-3, atol=0)
    assert float(mean[0, 0]) > 1.9
    assert float(mean[0, 2]) < 0.05


def test_no_pull_of_plain_descent_overshoots_zero() -> None:
    start, solver = torch.tensor([[1.0, 1.0, 0.1, -0.1]]), TurboVBI(kl=1e3, settle=1.0, **STILL)
    p, state = begun(start, 2, 10, solver, learning_rate=lambda: 0.1)
    for _ in range(9):
        state = step(solver, p, state, torch.zeros_like(start), 0.1)
        assert bool((state.mean["w"] * start >= -1e-6).all())
        assert bool((state.mean["w"].abs() <= start.abs() + 1e-6).all())


def test_refusals_and_options() -> None:
    fc = Site("fc.weight", "linear", (4, 8), (Member("fc.weight"),))
    assert str(TurboVBI().refuses(Term(fc, LowRank()))).startswith("turbo_vbi infers which weights are zero")
    assert TurboVBI().refuses(Term(fc, TopK())) is None
    with pytest.raises(UsageError, match=r"solver turbo_vbi: kl=3e-05, coupling=1\.0"):
        TurboVBI(coupling=1.0)
    with pytest.raises(UsageError, match="solver turbo_vbi: sigma=0"):
        TurboVBI(sigma=0.0)
