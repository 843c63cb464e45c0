"""Reweighted group lasso by hand: who is pulled, how far, and that a unit goes as one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur import catalog, graph
from secateur.constraints.blocks import Blocks
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Problem, Term
from secateur.errors import UsageError
from secateur.solvers._units import units
from secateur.solvers.reweighted import Reweighted
from secateur.testing import nets
from secateur.types import Member, Site


def problem(start: Tensor, constraint: Constraint, level: int, steps: int) -> Problem:
    site = Site("w", "linear", tuple(start.shape), (Member("w"),))
    term = Term(site, constraint, level, True)
    return Problem({"w": start.clone().requires_grad_()}, (term,), lambda weights, h, t: {"w": level}, steps)


def pulled(solver: Reweighted, p: Problem, steps: int) -> Tensor:
    """The weights after so many steps in which the loss does not object."""
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(steps):
            state = solver.step(state)
    return p.params["w"].detach()


def test_a_step_by_hand() -> None:
    start = torch.tensor([[4.0, 3.0, 2.0, -1.0]])
    solver = Reweighted(rounds=1, strength=1.0, eps=1e-9)
    # There is room for two; the largest of the others is 2, so lambda is 4 / 10 a step, and a = 1/2 and 1.
    w = pulled(solver, problem(start, TopK(), 2, 10), 1)
    torch.testing.assert_close(w, torch.tensor([[4.0, 3.0, 1.8, -0.6]]))
    w = pulled(Reweighted(rounds=1, strength=1.0, eps=1e-9, bounded=False), problem(start, TopK(), 2, 10), 1)
    torch.testing.assert_close(w, torch.tensor([[3.9, 3 - 0.4 / 3, 1.8, -0.6]]))
    w = pulled(Reweighted(rounds=1, strength=1.0, eps=1e-9, form="square"), problem(start, TopK(), 2, 10), 1)
    torch.testing.assert_close(w, torch.tensor([[4.0, 3.0, 2 / (1 + 0.8 / 4), -1 / (1 + 0.8)]]))


def test_what_there_is_no_room_for_goes_within_a_round() -> None:
    start = torch.tensor([[4.0, 3.0, 2.0, -1.0]])
    assert pulled(Reweighted(rounds=1, strength=1.0), problem(start, TopK(), 2, 10), 10).count_nonzero() <= 3
    assert pulled(Reweighted(rounds=1, strength=1.1), problem(start, TopK(), 2, 10), 10).tolist() == [[4, 3, 0, 0]]


def test_a_block_goes_as_one() -> None:
    start = torch.tensor([[3.0, 0.1, 6.0], [4.0, 9.0, 8.0]])
    w = pulled(Reweighted(rounds=1, strength=1.0, eps=1e-9), problem(start, Blocks(rows=2), 2, 10), 1)
    # Norms 5, 9.0006 and 10: of the first column goes 25 / 10 / 5 of the length.
    torch.testing.assert_close(w, torch.tensor([[2.7, 0.1, 6.0], [3.6, 9.0, 8.0]]))


def test_a_channel_has_its_norm_with_it() -> None:
    net = nets.residual()
    traced = graph.trace(net, nets.example("residual"))
    params = dict(net.named_parameters())
    site = next(g for g in traced.groups if "conv1.weight" in {m.param for m in g.members})
    term = Term(site, Rows(), 3, True)
    (found,) = units(Problem(params, (term,), lambda w, h, t: {site.name: 3}, 1))
    rows = params["conv1.weight"].flatten(1)
    own = torch.cat([rows, params["bn1.weight"][:, None], params["bn1.bias"][:, None]], 1)
    torch.testing.assert_close(found.norms(params), own.norm(dim=1))
    scaled = found.scaled(params, torch.arange(6.0))
    torch.testing.assert_close(scaled["bn1.bias"], params["bn1.bias"] * torch.arange(6.0))


def test_what_is_refused() -> None:
    site = Site("w", "linear", (4, 8), (Member("w"),))
    assert "factors" in str(Reweighted().refuses(Term(site, catalog.load("constraints", "lowrank")())))
    with pytest.raises(UsageError, match="strength"):
        Reweighted(strength=-1.0)
    with pytest.raises(UsageError, match="square"):
        Reweighted(form="cubic")  # type: ignore[arg-type]
