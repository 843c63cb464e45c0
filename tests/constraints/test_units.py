"""Units: hidden units of linear pairs and of recurrent layers; what a unit is, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur import graph
from secateur.constraints.rows import Rows
from secateur.constraints.units import Units
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.terms import views
from secateur.testing import brute_force


def rule(constraint, masks, level):
    return masks.any(axis=2).sum(axis=1) <= level


LAWS = [(Units(), brute_force.Supports(rule))]


class Mixed(nn.Module):
    """A convolution, a GRU of two units, a pair of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rec = nn.Conv1d(2, 3, 1), nn.GRU(3, 2, batch_first=True)
        self.up, self.down = nn.Linear(2, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rec(self.conv(x).relu().transpose(1, 2))[0][:, -1]
        return self.down(self.up(y).relu())


def terms(entry: dict, net: nn.Module | None = None, x: Tensor | None = None):
    traced = graph.trace((net or Mixed()).eval(), torch.randn(2, 2, 5) if x is None else x)
    return Recipe.from_dict({"constrain": [entry]}).build_terms(*traced.free)


def test_units_are_of_recurrent_layers_and_between_linear_ones() -> None:
    found = {t.site.name: t.site.shape for t in terms({"where": "*", "with": "units"})}
    assert found == {"rec.weight_ih_l0.units": (2,), "up.weight.channels": (6,)}
    rows = {t.site.name for t in terms({"where": "*", "with": "rows"})}
    assert "up.weight.channels" in rows
    assert "rec.weight_ih_l0.units" not in rows
    assert {t.site.name for t in terms({"where": "rec", "with": "units"})} == {"rec.weight_ih_l0.units"}


def test_a_unit_is_its_three_gates_of_both_weights() -> None:
    """Unit 1 is rows 1, 3, 5. All of input 1, of recurrent weight 2 at unit 0: unit 0 has 3 * 3 + 3 * 8 = 33."""
    (term,) = terms({"where": "rec", "with": "units", "level": {"units": 1}})
    params = {"rec.weight_ih_l0": torch.ones(6, 3), "rec.weight_hh_l0": torch.zeros(6, 2)}
    params["rec.weight_hh_l0"][::2] = 2.0
    m = views.matrix(term.site, "unit", params)
    assert m.square().sum(1).tolist() == [33.0, 9.0]
    z = views.write(term.site, "unit", params, term.constraint.project(m, term.level))
    assert z["rec.weight_ih_l0"].any(1).tolist() == [True, False] * 3


def test_between_linear_layers_they_are_rows() -> None:
    w = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Units().project(w, 3), Rows().project(w, 3))
    assert Units().parse_level({"units": 3}, (8, 4)) == 3
    assert Units().parse_level({"sparsity": 0.75}, (8, 4)) == 2
    assert Units().packing((8, 4), 2) == Rows().packing((8, 4), 2)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rec, self.last = nn.LSTM(2, 4, proj_size=3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rec(x.transpose(1, 2))[0][:, -1])


@pytest.mark.parametrize(
    ("entry", "net", "said"),
    [
        ({"where": "*", "with": "units"}, Projected(), "no hidden units that could be removed; rows"),
        ({"where": "conv", "with": "units"}, None, "conv.weight, which makes no hidden units; they are at"),
        ({"where": "rec", "with": "units", "level": {"units": 3}}, None, "units is 3; 0..2 is possible"),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_does_not_fit_is_refused(entry: dict, net: nn.Module | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        terms(entry, net)
