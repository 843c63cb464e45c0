"""What the allocator believes a tensor to cost is what the format writes: within a tenth and a few bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from secateur import formats
from secateur.budget.allocate import Allocator
from secateur.budget.menus import packed
from secateur.contracts import Term
from secateur.recipe import build_constraint
from secateur.terms import feasible
from secateur.types import Limit, Member, Site

# Depthwise layers of nine weights a channel among ordinary ones: headers and entries are much of a tiny tensor.
SHAPES = [(1, 9), (6, 9), (24, 9), (16, 4), (10, 60), (48, 72), (64, 128)]
FEW_BYTES = 10


@pytest.mark.parametrize("divisor", [4, 8, 20, 60])
@pytest.mark.parametrize("chosen", ["topk", ["topk", "codebook"], ["topk", "uniform"], "codebook", "uniform"], ids=str)
def test_estimates_are_near_what_is_written(chosen: Any, divisor: int) -> None:
    g = torch.Generator().manual_seed(divisor)
    weights = {f"w{i}": torch.randn(s, generator=g) * (2.0 / s[1]) ** 0.5 for i, s in enumerate(SHAPES)}
    constraint = build_constraint(chosen)
    terms = tuple(Term(Site(n, "linear", tuple(w.shape), (Member(n),)), constraint) for n, w in weights.items())
    limit = Limit("nbytes", 4 * sum(w.numel() for w in weights.values()) / divisor)
    if isinstance(chosen, str) and chosen != "topk" and divisor > 8:
        pytest.skip("values alone do not get there")
    levels = Allocator(terms, (limit,))(weights, {}, 1.0)
    near = feasible.project(terms, levels, weights)
    prices = {n: packed(constraint, (w.shape[0], w.shape[1]), levels[n]) for n, w in weights.items()}
    believed = {n: sum(p.estimate for p in tensors) for n, tensors in prices.items()}
    real = {n: formats.measure(np.ascontiguousarray(w.numpy())).nbytes for n, w in near.items()}
    for name in weights:
        assert abs(believed[name] - real[name]) <= 0.1 * real[name] + FEW_BYTES, (name, levels[name])
    assert sum(believed.values()) == pytest.approx(sum(real.values()), rel=0.08)
