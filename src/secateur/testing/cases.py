"""The matrices, importances and levels on which the laws of a constraint are tried (`laws.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor

from secateur.contracts import Constraint
from secateur.curves import thinned
from secateur.errors import ConstraintError
from secateur.testing import brute_force
from secateur.types import Level, Stage

EDGES = ((2, 4), (5, 1), (4, 2), (1, 1))  # few units, one column, one weight; beside `Constraint.trials`


_JOINT_SIZE = 8  # elements


@dataclass(frozen=True)
class Case:
    """One matrix, one importance, one level."""

    constraint: Constraint
    weight: Tensor
    importance: Tensor | None
    level: Level
    label: str
    oracle: brute_force.Oracle | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.weight.shape[0]), int(self.weight.shape[1])

    @property
    def h(self) -> Tensor:
        return (
            torch.ones_like(self.weight, dtype=torch.float64) if self.importance is None else self.importance.double()
        )

    def project(self) -> Tensor:
        return self.constraint.project(self.weight, self.level, self.importance)

    @cached_property
    def z(self) -> Tensor:
        """The projection, computed once."""
        return self.project()

    @cached_property
    def best(self) -> float | None:
        """The smallest distance by brute force, where that is known."""
        known = self.oracle or (brute_force.Supports() if self.constraint.stage == Stage.SUPPORT else None)
        return (
            None if known is None else known(self.constraint, self.weight.double().numpy(), self.level, self.h.numpy())
        )

    def distance(self, z: Tensor) -> float:
        return float((self.h * (self.weight.double() - z.double()).square()).sum())

    def slack(self) -> float:
        """How much sqrt(distance) may exceed the optimum by rounding values to the dtype or the value format."""
        if self.constraint.stage == Stage.SUPPORT:
            return 1e-12 * self.norm()
        return 2 * max(torch.finfo(self.weight.dtype).eps, self.constraint.rounding, 1e-13) * self.norm()

    def norm(self) -> float:
        return math.sqrt(float((self.h * self.weight.double().square()).sum()))

    def __str__(self) -> str:
        return f"{self.constraint}, level {self.level}, {self.label}, {self.weight.tolist()}, h {self.importance}"


def cases(constraint: Constraint, seed: int, oracle: brute_force.Oracle | None = None) -> Iterator[Case]:
    """Matrices (random, ties, zeros, clusters, all equal) x importances x levels, three dtypes."""
    g = torch.Generator().manual_seed(seed)
    for shape in shapes_of(constraint):
        try:
            levels = levels_of(constraint, shape)
        except ConstraintError:
            continue
        for label, weight in _matrices(shape, g).items():
            h = torch.rand(shape, generator=g, dtype=torch.float64) * 3
            sparse_h = torch.where(torch.rand(shape, generator=g) < 0.3, 0.0, h)
            for level in levels:
                yield Case(constraint, weight, None, level, label, oracle)
                if label in ("random", "clusters", "heavy"):
                    yield Case(constraint, weight, h, level, f"{label}, weighted", oracle)
                if label == "zeros":
                    yield Case(constraint, weight, sparse_h, level, f"{label}, some h = 0", oracle)
                if label == "random":
                    for dtype in (torch.float32, torch.float16):
                        yield Case(constraint, weight.to(dtype), h.float(), level, f"{label} {dtype}", oracle)


def shapes_of(constraint: Constraint) -> tuple[tuple[int, int], ...]:
    """The set's own shapes and the edges; of a joint set, whose menus are products, few that its oracle bears."""
    if is_joint(constraint):
        own = [s for s in constraint.trials if s[0] * s[1] <= _JOINT_SIZE and fits(constraint, s)]
        return tuple(dict.fromkeys((EDGES[0], EDGES[-1], *own[:1])))
    return tuple(dict.fromkeys((*constraint.trials, *EDGES)))


def levels_of(constraint: Constraint, shape: tuple[int, int]) -> list[Level]:
    """All levels of a short menu, the ends and some between of a long one; of a joint set the ends of every part."""
    menu = constraint.levels(shape)
    if is_joint(constraint):
        menus = [part.levels(shape) for part, _ in constraint.split(None)]
        ends = list(product(*((m[0], m[-1]) for m in menus)))
        between = [menu[i] for i in np.linspace(0, min(len(menu), 30) - 1, 6).astype(int)]
        return list(dict.fromkeys([*ends, *between]))
    return thinned(menu, 6)


def _matrices(shape: tuple[int, int], g: torch.Generator) -> dict[str, Tensor]:
    n = shape[0] * shape[1]
    normal = torch.randn(shape, generator=g, dtype=torch.float64)
    clusters = torch.tensor([1.0, 1.04, 9.0, 9.1, 1.08, -4.0, -4.02, 20.0], dtype=torch.float64)
    return {
        "random": normal,
        "heavy": normal**3,
        "ties": (normal * 1.5).round() / 2 + 0.25,
        "zeros": torch.where(torch.rand(shape, generator=g) < 0.5, 0.0, normal) * -1,  # some of them -0.0
        "clusters": clusters[torch.randperm(8, generator=g)].repeat(n // 8 + 1)[:n].reshape(shape),
        "equal": torch.full(shape, 1.5, dtype=torch.float64),
        "all zero": torch.zeros(shape, dtype=torch.float64),
    }


def is_joint(constraint: Constraint) -> bool:
    return len(constraint.split(None)) > 1


def fits(constraint: Constraint, shape: tuple[int, int]) -> bool:
    try:
        return len(constraint.levels(shape)) > 0
    except ConstraintError:
        return False
