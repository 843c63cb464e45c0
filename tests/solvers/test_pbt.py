"""A trained binary layer: what a gate behind a norm gains, and the slope that narrows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.solvers.small import problem, step
from torch import nn

from secateur import graph
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.solvers._masks import sharpness
from secateur.solvers.pbt import Pbt
from secateur.types import Member, Site


def small(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    conv, behind = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3) if norm else nn.Identity()
    for p in behind.parameters():
        nn.init.uniform_(p)
    return nn.Sequential(conv, behind, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double()


@pytest.mark.parametrize("norm", [False, True])
def test_a_channel_gains_what_a_gate_behind_its_norm_does(norm: bool) -> None:
    net, x = small(norm), torch.randn(4, 2, 5, 5, dtype=torch.float64)
    terms = tuple(Term(g, Rows(), g.shape[0], True) for g in graph.trace(net, x).groups)
    assert [t.site.shape for t in terms] == [(3,)]
    levels = {t.site.name: t.level for t in terms}
    state = Pbt().init(Problem(dict(net.named_parameters()), terms, lambda w, h, t: levels, 10))
    gate = torch.ones(3, dtype=torch.float64, requires_grad=True)
    net[1].register_forward_hook(lambda module, given, out: out * gate[:, None, None])
    nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 1, 0])).backward()
    with torch.no_grad():
        found = state.by_row(state.follow({}), state.beside())["0.weight"]
    assert gate.grad is not None
    # A norm's epsilon of 1e-5 leaves that much of the convolution's own gain.
    torch.testing.assert_close(found.flatten(1).sum(dim=1), -gate.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[:, :1, :1, :1].expand_as(found), found)  # one number a row


def test_gates_far_from_the_threshold_rest() -> None:
    start = torch.tensor([[8.0], [2.0], [1.5], [0.1]], dtype=torch.float64)
    p, solver = problem(start, 2, 100, rows=True), Pbt(rate=1.0, every=1)
    state = solver.init(p)
    for _ in range(60):
        state = step(solver, p, state, torch.zeros_like(start))
    s, beyond, before = sharpness(state, 10.0, 0.75), state.beyond()["w"], state.learned["w"]
    assert s == pytest.approx(10.0 ** (60 / 75))
    assert float(beyond[1]) == pytest.approx(math.log(2.0 / 1.5))  # half-way, in squares
    state = step(solver, p, state, -1.0 / start, 0.0)  # the rows that are shown, and those that are not, gain alike
    moved = state.learned["w"] - before
    torch.testing.assert_close(moved, 0.01 * 0.5 * s / (s * beyond).cosh().square())
    assert float(moved[0]) < 1e-6 < float(moved[1])


def test_rows_have_one_score_and_weights_their_own() -> None:
    start = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert Pbt().init(problem(start, 1, 4, rows=True)).score["w"].exp().flatten().tolist() == pytest.approx(
        [5 / 4.5, 5 / 4.5, 4 / 4.5, 4 / 4.5]
    )
    assert Pbt().init(problem(start, 2, 4)).score["w"].unique().numel() == 3
    both = problem(start, 1, 4, rows=True)
    inside = Term(Site("again", "linear", (2, 2), (Member("w"),)), TopK(), 1, True)
    state = Pbt().init(replace(both, terms=(*both.terms, inside), allocate=lambda weights, h, t: {"w": 1, "again": 1}))
    assert state.score["w"].unique().numel() == 3  # weights are chosen in the row that stays
    assert state.project(1.0)[1]["w"].tolist() == [[0.0, 3.0], [0.0, 0.0]]
