"""Heads: what a head of a layer is, from the trace to the matrix; levels; what is refused before any training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur import graph
from secateur.constraints.heads import Heads
from secateur.errors import UsageError
from secateur.formats import measure
from secateur.recipe import Recipe
from secateur.report import words
from secateur.terms import views
from secateur.testing import brute_force


def rule(constraint, masks, level):
    return masks.any(axis=2).sum(axis=1) <= level


LAWS = [(Heads(), brute_force.Supports(rule))]


class Block(nn.Module):
    """Two heads of two in a net of four features."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x + self.attend(x, x, x, need_weights=False)[0]).mean(1))


def terms(entry: dict, net: nn.Module | None = None):
    traced = graph.trace((net or Block()).eval(), torch.randn(2, 3, 4))
    return Recipe.from_dict({"constrain": [entry]}).build_terms(*traced.free)


def test_the_head_with_the_largest_energy_in_all_three_stays() -> None:
    """Head 0: rows 0, 1 of queries, 4, 5 of keys, 8, 9 of values; head 1 the others."""
    (term,) = terms({"where": "*", "with": "heads", "level": {"keep": 1}})
    assert term.level == 1
    assert term.site.name == "attend.in_proj_weight.heads"
    w = torch.ones(12, 4)
    w[[2, 6, 10]] = torch.tensor([[0.0], [0.0], [3.0]])  # head 1: 0 + 4 + 0 + 4 + 36 + 4 against 24
    params = {"attend.in_proj_weight": w}
    z = term.constraint.project(views.matrix(term.site, term.constraint.view, params), 1)
    kept = views.write(term.site, term.constraint.view, params, z)["attend.in_proj_weight"].abs().sum(1)
    assert (kept > 0).nonzero().flatten().tolist() == [3, 7, 10, 11]


def test_levels_and_price() -> None:
    assert Heads().parse_level({"heads": 3}, (8, 96)) == 3
    assert Heads().parse_level({"sparsity": 0.5}, (8, 96)) == 4
    w = torch.randn(8, 1536, generator=torch.Generator().manual_seed(0))
    promise = Heads().packing((8, 1536), 4)
    z = Heads().project(w, 4)
    found = measure(z[z.any(1)].numpy())  # removed: the file holds what is left
    assert promise.estimate == pytest.approx(found.nbytes, rel=0.1)
    assert words.runs([promise]) == "removed"


@pytest.mark.parametrize(
    ("entry", "net", "said"),
    [
        (
            {"where": "*", "with": "heads"},
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
            "no attention heads",
        ),
        ({"where": "last", "with": "heads"}, None, "last.weight, which makes no attention heads; they are at attend"),
        ({"where": "*", "with": "heads", "level": {"keep": 3}}, None, "keep is 3; 0..2 is possible"),
        ({"where": "*", "with": ["heads", "topk"]}, None, "an entry of its own"),
    ],
)
def test_what_does_not_fit_is_refused(entry: dict, net: nn.Module | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        terms(entry, net)


def test_other_sets_do_not_see_heads() -> None:
    """`rows` and `inputs` go on as before; single weights inside heads are free to go as well."""
    with pytest.raises(UsageError, match="no channels"):
        terms({"where": "attend*", "with": "rows"})
    assert {t.site.name for t in terms({"where": "*", "exclude": "last", "with": "topk"})} == {
        "attend.in_proj_weight",
        "attend.out_proj.weight",
    }
