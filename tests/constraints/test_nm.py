"""N:M: hand-checked numbers, the group direction, its errors."""

import pytest
import torch

from secateur.constraints.nm import NM
from secateur.errors import ConstraintError, UsageError
from secateur.terms import views
from secateur.testing import brute_force
from secateur.types import Member, Site


def rule(constraint, masks, level):
    return (masks.reshape(len(masks), -1, constraint.m).sum(axis=2) <= level).all(axis=1)


class Groups(brute_force.Supports):
    """A product over its groups: the sum of their own smallest distances."""

    def __call__(self, constraint, weight, level, h):
        groups = zip(weight.reshape(-1, 1, constraint.m), h.reshape(-1, 1, constraint.m), strict=True)
        return sum(brute_force.Supports(rule)(constraint, w, level, g) for w, g in groups)


LAWS = [(NM(), Groups(rule)), (NM(m=2), Groups(rule))]


def test_two_of_four() -> None:
    w = torch.tensor([[4.0, 1.0, -3.0, 2.0, 1.0, 1.0, 1.0, 1.0]])
    assert NM().project(w, 2).tolist() == [[4.0, 0.0, -3.0, 0.0, 1.0, 1.0, 0.0, 0.0]]
    assert NM().distance(w)(2) == 1 + 4 + 1 + 1


def test_groups_run_along_input_channels() -> None:
    """Conv [1, 4, 1, 2]: the four channels of one kernel position make a group."""
    w = torch.tensor([[[[1.0, 8.0]], [[2.0, 7.0]], [[3.0, 6.0]], [[4.0, 5.0]]]])
    site = Site("w", "conv", (1, 4, 1, 2), (Member("w"),))
    matrix = views.matrix(site, NM.view, {"w": w})
    z = views.write(site, NM.view, {"w": w}, NM().project(matrix, 1))["w"]
    assert z.flatten().tolist() == [0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0]


def test_levels() -> None:
    assert NM().parse_level({"sparsity": 0.5}, (2, 8)) == 2
    assert NM(m=8).parse_level({"n": 3}, (2, 8)) == 3
    with pytest.raises(ConstraintError, match=r"nm\(m=4\) \[2, 6\].*2 are missing"):
        NM().project(torch.ones(2, 6), 2)
    with pytest.raises(UsageError, match="nm"):
        NM(m=1)
