"""Activating-while-Pruning: which weights go first, around any solver, and that units are not less active for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.constraints.blocks import Blocks
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.solvers.activating import Activating
from secateur.solvers.admm import Admm
from secateur.solvers.gradual import Gradual
from secateur.solvers.one_shot import OneShot
from secateur.solvers.rigl import RigL
from secateur.solvers.set import SET
from secateur.types import Member, Site

W = torch.tensor([[0.1, -5.0, -4.0, 3.0, -3.0, 2.0, 1.0, -0.5]])


def problem(w: Tensor, level: int, steps: int = 4) -> Problem:
    """A layer that another one's `readers` names, of which `level` weights may stay, and that one, dense."""
    front = Site("a", "linear", (1, 8), (Member("a"),), readers=("b",))
    behind = Site("b", "linear", (1, 8), (Member("b"),))
    terms = (Term(front, TopK(), None, True), Term(behind, TopK(), level, True))
    params = {"a": torch.ones(1, 8).requires_grad_(), "b": w.clone().requires_grad_()}
    return Problem(params, terms, lambda weights, h, t: {"a": None, "b": level}, steps)


def kept(solver: Solver, level: int, moved: Tensor | None = None) -> list[int]:
    p = problem(W, level)
    with torch.no_grad():
        state = solver.init(p)
        for _ in range(4):
            p.params["b"] += (0 if moved is None else moved) / 4
            state = solver.step(state)
        w = solver.finish(state).weights["b"]
    return w.nonzero()[:, 1].tolist()


def test_negative_weights_that_moved_least_go_first() -> None:
    moved = torch.tensor([[0.0, -0.4, -0.1, 0.0, -0.2, 0.0, 0.0, -0.3]])
    plain, ours = Gradual(every=4), Activating(Gradual(every=4), share=0.25)
    assert kept(plain, 6, moved) == [1, 2, 3, 4, 5, 6]  # the smallest two go
    assert kept(ours, 6, moved) == [0, 1, 3, 5, 6, 7]  # two of eight: -4 and -3 moved least
    assert kept(Activating(Gradual(every=4), share=0.0), 6, moved) == kept(plain, 6, moved)


def test_of_weights_that_moved_alike_the_smaller_goes_first() -> None:
    assert kept(Activating(OneShot(), share=0.25), 6) == [0, 1, 2, 3, 5, 6]  # of -5, -4, -3 and -0.5


def test_nothing_goes_that_need_not() -> None:
    assert kept(Activating(OneShot(), share=0.25), 8) == list(range(8))


def test_units_are_never_less_active_for_it() -> None:
    g = torch.Generator().manual_seed(0)
    w = torch.randn(1, 8, generator=g)
    x = torch.rand(1000, 8, generator=g)  # as behind a ReLU
    p = problem(w, 6)
    with torch.no_grad():
        answer = Activating(OneShot(), share=0.25).init(p).candidate({k: v.detach() for k, v in p.params.items()})["b"]
    gone = (answer == 0).flatten()
    assert int(gone.sum()) == 2
    assert bool((w[0, gone] < 0).all())
    before, after = (x @ v.T <= 0 for v in (w, answer))
    assert not bool((after & ~before).any())


def test_the_recipe_builds_what_is_inside() -> None:
    told = {"name": "activating", "share": 0.05, "solver": {"name": "admm", "round_steps": 7}, "epochs": 3}
    solver = Recipe.from_dict({"solver": told}).build_solver()
    assert solver == Activating(Admm(round_steps=7), 0.05)
    assert solver.needs == Admm.needs
    assert Recipe.from_dict({"solver": {"name": "activating", "solver": "one_shot"}}).build_solver().instant
    with pytest.raises(UsageError, match="round_step"):
        Recipe.from_dict({"solver": {"name": "activating", "solver": {"name": "admm", "round_stepz": 7}}})


def test_its_legs_are_those_of_the_solver_inside() -> None:
    inside = Gradual(stages=2)
    ours = Activating(inside, 0.1).legs()
    assert [leg[1:] for leg in ours] == [leg[1:] for leg in inside.legs()]
    assert all(isinstance(s, Activating) and s.share == 0.1 for s, *_ in ours)


def test_the_solver_inside_meets_the_gradients() -> None:
    """RigL shades what its support leaves out, so that no optimizer's moments gather there."""
    p, ours = problem(W, 3), Activating(RigL())
    state = ours.init(p)
    for w in p.params.values():
        w.grad = torch.ones_like(w)
    ours.before_step(state)
    assert p.params["b"].grad is not None
    assert torch.equal(p.params["b"].grad != 0, p.params["b"] != 0)
    assert int(p.params["b"].grad.count_nonzero()) == 3
    assert Activating(SET()).by_chance


def test_what_is_refused() -> None:
    site = Site("w", "linear", (4, 8), (Member("w"),))
    assert Activating().refuses(Term(site, TopK())) is None
    assert "single weights" in str(Activating().refuses(Term(site, Blocks())))
    with pytest.raises(UsageError, match="share"):
        Activating(share=1.0)
