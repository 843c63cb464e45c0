"""One weight under top-k or rows, and steps of gradient descent whose gradients are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Problem, Solver, Term
from secateur.types import Level, Member, Site


def problem(start: Tensor, level: Level, steps: int, rows: bool = False, seed: int = 0) -> Problem:
    """`level` weights or rows of `w` stay, from the first allocation on."""
    site = Site("w", "linear", tuple(start.shape), (Member("w"),))
    constraint: Constraint = Rows() if rows else TopK()
    w = start.clone().requires_grad_()
    return Problem(
        {"w": w}, (Term(site, constraint, level, True),), lambda weights, h, t: {"w": level}, steps, seed=seed
    )


def step(solver: Solver, p: Problem, state: Any, gradient: Tensor, lr: float = 0.1) -> Any:
    """One step down the gradient at the weights that are shown."""
    w = p.params["w"]
    w.grad = gradient.clone()
    with torch.no_grad():
        w -= lr * gradient
        return solver.step(state)
