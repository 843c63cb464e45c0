"""One weight and its gradients by hand, for tests of solvers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.contracts import Constraint, Problem, Solver, Term
from secateur.types import Level, Member, Site


def problem(start: Tensor, constraint: Constraint, level: Level, steps: int, seed: int = 0) -> Problem:
    """`start` [rows, cols] under one set at a given level."""
    site = Site("w", "linear", tuple(start.shape), (Member("w"),))

    def levels(weights: Any, h: Any, tightness: float) -> dict[str, Level]:
        return {"w": constraint.at_tightness((start.shape[0], start.shape[1]), level, tightness)}

    w = start.clone().requires_grad_()
    return Problem({"w": w}, (Term(site, constraint, level, True),), levels, steps, seed=seed)


def step(solver: Solver, p: Problem, state: Any, gradient: Tensor, lr: float) -> Any:
    """One step of gradient descent on the loss and the penalty, with the solver's own."""
    penalty, w = solver.penalty(state), p.params["w"]
    slope = torch.autograd.grad(penalty, w)[0] if isinstance(penalty, Tensor) and penalty.requires_grad else 0.0
    with torch.no_grad():
        w.grad = gradient + slope
        solver.before_step(state)
        w -= lr * w.grad
        return solver.step(state)


def moved(solver: Solver, p: Problem, *moves: Tensor) -> Tensor:
    """The weight after an optimizer that made these steps, each with the solver's own."""
    with torch.no_grad():
        state = solver.init(p)
        for move in moves:
            p.params["w"] += move
            state = solver.step(state)
    return p.params["w"].detach()
