"""Inputs: whole channels of one reader or of all, removed where nobody is left who reads them."""

from typing import Any

import pytest
import torch
import written
from torch import nn

from secateur import graph
from secateur.constraints.all_of import AllOf
from secateur.constraints.columns import Columns
from secateur.constraints.inputs import Inputs
from secateur.constraints.rows import Rows
from secateur.recipe import Recipe
from secateur.terms import feasible
from secateur.testing import brute_force, nets
from secateur.testing.constraints import check_constraint
from secateur.types import Site


def rule(constraint, masks, level):
    if constraint.coupled:
        return masks.any(axis=2).sum(axis=1) <= level
    n_in = max(masks.shape[2] // constraint.taps, 1)
    length = max(masks.shape[1] // constraint.groups, 1)
    used = 0
    for i in range(0, masks.shape[1], length):
        for c in range(n_in):
            used = used + masks[:, i : i + length, c::n_in].any(axis=(1, 2))
    return used <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (Inputs(), Inputs(taps=2), Inputs(groups=2), Inputs(coupled=True))
]


def test_a_channel_is_its_columns_at_all_taps() -> None:
    """Two inputs at two taps, columns (tap, input): 1 + 4 against 2.25 + 2.25."""
    own = Inputs().on(written.site((1, 2, 2, 1)))
    assert (own.taps, own.coupled) == (2, False)
    w = torch.tensor([[1.0, 1.5, 2.0, 1.5]])
    assert own.project(w, 1).tolist() == [[1.0, 0.0, 2.0, 0.0]]

    class Mixed(Inputs):  # neighbours in memory instead
        def _bands(self, shape: Any) -> Any:
            rows, _ = super()._bands(shape)
            return rows, torch.arange(shape[1]) // self.taps

    with pytest.raises(AssertionError):
        check_constraint(Mixed(taps=2), oracle=brute_force.Supports(rule))


def terms_on(net: nn.Module, name: str, **entry: Any) -> tuple[Any, tuple[Any, ...]]:
    traced = graph.trace(net, nets.example(name))
    recipe = Recipe.from_dict({"constrain": [{"where": "*", "with": "inputs", **entry}]})
    return traced, recipe.build_terms(traced.sites, traced.groups)


def test_all_readers_of_a_channel_let_it_go_together() -> None:
    """The stem's channels are added to conv2's: conv1 and the last layer read them, and their filters go with them."""
    net = nets.residual()
    traced, terms = terms_on(net, "residual", where=["conv*", "fc"], level={"inputs": 3})
    sites = {t.site.name: t.site for t in terms}
    assert {m.param for m in sites["conv1.weight.inputs"].members} == {"conv1.weight", "fc.weight"}
    assert {m.param for m in sites["conv2.weight.inputs"].members} == {"conv2.weight"}
    chosen = [t for t in terms if t.site.name == "conv1.weight.inputs"]
    weights = {k: p.detach() for k, p in net.named_parameters()}
    near = feasible.project(chosen, {t.site.name: t.level for t in chosen}, weights)
    small, surgery = graph.shrink(net, traced, near)
    assert {tuple(small.get_parameter(k).shape) for k in ("stem.weight", "fc.weight")} == {(3, 1, 3, 3), (3, 3)}
    masked = graph.shrink(net, traced, near, pinned=lambda s: {(e["tensor"], e["axis"]) for e in s["edits"]})[0]
    x = nets.example("residual")
    torch.testing.assert_close(small(*x), masked(*x))
    assert graph.after_cut(sites["conv1.weight.inputs"], surgery).shape == (3,)


def test_weights_whose_inputs_no_group_holds_stand_alone() -> None:
    _, terms = terms_on(nets.mlp(), "mlp")
    assert [(t.site.name, t.site.op, t.constraint.coupled) for t in terms] == [
        ("0.weight", "linear", False),
        ("2.weight.inputs", "channels", True),
        ("4.weight.inputs", "channels", True),
    ]


def test_a_layer_goes_by_the_name_of_the_reader() -> None:
    _, terms = terms_on(nets.mlp(), "mlp", where="2")
    assert [m.param for m in terms[0].site.members] == ["2.weight"]
    assert terms[0].site.shape == (16,)


def test_filters_inputs_and_columns_together() -> None:
    """Of each weight by itself: at most so many of each, and never worse than one after the other (conformance)."""
    joint = AllOf((Rows(), Inputs(), Columns()))
    assert (joint.view, joint.stage.name) == ("o_khkw_c", "SUPPORT")
    conv: Site = written.site((4, 3, 2, 2))
    own = joint.on(conv)
    level = own.parse_level({"rows": {"keep": 2}, "inputs": {"keep": 2}, "columns": {"keep": 5}}, (4, 12))
    z = own.project(torch.randn(4, 12, generator=torch.Generator().manual_seed(1)), level)
    assert int((z != 0).any(1).sum()) == 2
    assert int((z != 0).any(0).sum()) == 5
    assert int((z.reshape(4, 4, 3) != 0).any(0).any(0).sum()) == 2
    assert own.packing((4, 12), level).nnz == 10  # two rows of five


@pytest.mark.parametrize("shape", [written.DENSE, written.CONV])
def test_the_file_stores_them_at_the_price_that_is_told(shape: tuple[int, ...]) -> None:
    written.check_estimate(Inputs(), shape)
