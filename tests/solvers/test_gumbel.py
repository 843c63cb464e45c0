"""Gates drawn at every step: their law, their price, and that the budget bounds what they find."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.solvers.small import problem, step
from torch import Tensor

from secateur.constraints.blocks import Blocks
from secateur.contracts import Term
from secateur.errors import UsageError
from secateur.solvers.gumbel import Gumbel
from secateur.types import Member, Site

START = torch.tensor([[4.0, 3.0, 2.0, 1.0]])


def test_a_gate_is_open_as_often_as_the_logistic_says() -> None:
    p, solver = problem(START, 2, 4000), Gumbel(every=1)
    state = step(solver, p, solver.init(p), torch.zeros(1, 4))
    odds = state.beyond()["w"].sigmoid()
    n, opened = 1500, torch.zeros(1, 4)
    for state.n in range(n):
        opened += solver.gates(state)["w"] > 0.5
    assert bool(((opened / n - odds).abs() < 4 * (odds * (1 - odds) / n).sqrt()).all())
    state.n = 7
    assert torch.equal(solver.gates(state)["w"], solver.gates(state)["w"])
    again = Gumbel(every=1, tau=1e-6).gates(state)["w"]
    assert bool(((again < 1e-6) | (again > 1 - 1e-6)).all())


def test_a_row_has_one_gate() -> None:
    p, solver = problem(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), 2, 10, rows=True), Gumbel()
    gates = solver.gates(solver.init(p))["w"]
    assert torch.equal(gates, gates[:, :1].expand_as(gates))
    assert gates[:, 0].unique().numel() == 4


def kept(cost: float, rows: bool = False, gain: bool = True) -> Tensor:
    """The answer of a run whose budget asks for nothing, where the loss gains more by each weight than by the next."""
    start = torch.linspace(2.0, 1.0, 32).view(8, 4)
    p, solver = problem(start, 8 if rows else 32, 60, rows), Gumbel(rate=10.0, cost=cost, every=1, settle=0.75)
    state, gradient = solver.init(p), torch.linspace(-1.0, 0.0, 32).view(8, 4) * gain
    for _ in range(60):
        state = step(solver, p, state, gradient, 0.0)
    return solver.finish(state).weights["w"]


def test_the_price_of_a_gate_finds_the_ratio() -> None:
    found = [kept(cost) != 0 for cost in (0.0, 1.0, 1.5)]
    counts = [int(x.sum()) for x in found]
    assert counts[0] == 32 > counts[1] > counts[2] > 0
    assert bool(found[2][0].all())
    assert int(found[1][:4].sum()) > int(found[1][4:].sum())
    assert int(kept(0.0, gain=False).count_nonzero()) == 32
    assert int(kept(1.5, gain=False).count_nonzero()) == 0  # nothing is needed


def test_units_go_whole() -> None:
    assert set((kept(1.5, rows=True) != 0).sum(dim=1).tolist()) == {0, 4}


def test_a_block_stays_whole_while_one_of_its_weights_is_open() -> None:
    site = Site("w", "linear", (2, 8), (Member("w"),))
    p = problem(torch.linspace(1.0, 2.0, 16).view(2, 8), 4, 4)
    terms = (Term(site, Blocks(rows=1, cols=4), 4, True),)
    state = Gumbel().init(replace(p, terms=terms, allocate=lambda weights, h, t: {"w": 4}))
    state.learned["w"][0, :7] = -2.0
    state.learned["w"][1, 1] = -2.0
    assert (state.project(1.0)[1]["w"] != 0).tolist() == [[False] * 4 + [True] * 4, [True] * 8]


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="tau > 0"):
        Gumbel(tau=0.0)
