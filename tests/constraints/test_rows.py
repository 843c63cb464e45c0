"""Rows: hand-checked numbers, and coupled channels."""

import torch

from secateur.constraints.rows import Rows
from secateur.terms import views
from secateur.testing import brute_force
from secateur.types import Member, Site


def rule(constraint, masks, level):
    return masks.any(axis=2).sum(axis=1) <= level


LAWS = [(Rows(), brute_force.Supports(rule))]


def test_the_row_norm_decides() -> None:
    w = torch.tensor([[2.0, 2.0, 2.0], [3.5, 0.0, 0.0], [0.0, 0.0, 1.0]])  # squares 12, 12.25, 1; sums 6, 3.5, 1
    assert Rows().project(w, 1).tolist() == [[0.0, 0.0, 0.0], [3.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert Rows().distance(w)(1) == 13.0


def test_a_kept_row_may_grow_again() -> None:
    w = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert Rows().freeze(w, 1).project(torch.ones(2, 2)).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_coupled_channels_go_together() -> None:
    a, b = torch.ones(3, 2), torch.tensor([[1.0, 5.0, 2.0]])  # b: the channel is axis 1
    site = Site("a.channels", "channels", (3,), (Member("a"), Member("b", axis=1)))
    params = {"a": a, "b": b}
    z = views.write(site, Rows.view, params, Rows().project(views.matrix(site, Rows.view, params), 2))
    assert z["a"].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    assert z["b"].tolist() == [[0.0, 5.0, 2.0]]


def test_levels() -> None:
    assert Rows().parse_level({"keep": 3}, (8, 4)) == 3
    assert Rows().parse_level({"sparsity": 0.75}, (8, 4)) == 2
    assert Rows().at_tightness((16, 4), 4, 0.5) == 8
