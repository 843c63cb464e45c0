"""Channels go where the sets survive it: each set goes on at what is left, and one that would not pins its own site."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur import catalog, graph
from secateur.recipe import Recipe
from secateur.run.cut import cut, narrow
from secateur.run.net import Net
from secateur.terms import feasible
from secateur.testing import nets

SRC = Path(secateur.__file__).parent
# The recipe's default sets; the solver suite's own problems; and keys of records that are called as sets are.
_BENCHES = ("cli/bench.py", "engine/bench.py", "report/timings.py")
_RECORDS = ("engine/inspect.py", "proof/record.py", "report/next_steps.py", "report/records.py")
MAY_NAME = {
    "recipe/defaults.py",
    "recipe/sections.py",
    "testing/meters.py",
    "testing/solvers.py",
    ("engine/latency.py", "rows"),  # of a table
    ("export/membership.py", "rows"),
    *((file, "inputs") for file in (*_BENCHES, *_RECORDS)),
    *((file, "kernels") for file in _BENCHES),
}


def net(constrain: Any, dead: dict[str, list[int]], levels: dict[str, Any] | None = None) -> Net:
    """8 - 16 - 12 - 3, some rows of weights and biases zero, its weights in the sets at their levels."""
    model = nets.mlp()
    with torch.no_grad():
        for layer, rows in dead.items():
            for p in (model.get_parameter(f"{layer}.weight"), model.get_parameter(f"{layer}.bias")):
                p[rows] = 0.0
    traced = graph.trace(model, nets.example("mlp"))
    recipe = Recipe.from_dict({"model": "m:m", "constrain": constrain})
    terms = recipe.build_terms(traced.sites, traced.groups)
    made = Net(model, traced, terms, {t.site.name: (levels or {}).get(t.site.name, t.level) for t in terms})
    with torch.no_grad():
        for name, value in feasible.project(terms, made.levels, made.weights).items():
            model.get_parameter(name).copy_(value)
    return made


def shapes(after: Net) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in after.module.parameters() if p.dim() == 2]


NM = {"where": "2", "with": "nm", "level": {"n": 2}}
REST = {"where": ["0", "4"], "with": "topk", "level": {"sparsity": 0.1}}


@pytest.mark.parametrize(
    ("dead", "left"),
    [
        ({"0": [4, 5, 6, 7]}, [(12, 8), (12, 12), (3, 12)]),  # a whole group of 2:4
        ({"0": [3]}, [(16, 8), (12, 16), (3, 12)]),  # one of a group: it stays
        ({"0": [3], "2": [5, 7]}, [(16, 8), (10, 16), (3, 10)]),  # elsewhere, and rows of 2:4, go
    ],
)
def test_groups_pin_their_own_channels_and_no_others(dead: dict[str, list[int]], left: list[tuple[int, ...]]) -> None:
    before = net([NM, REST], dead)
    after = cut(before, nets.example("mlp"))
    assert shapes(after) == left
    x = nets.example("mlp")[0]
    torch.testing.assert_close(after.module(x), before.module(x))
    (own,) = (t for t in after.terms if t.site.name == "2.weight")
    assert own.constraint == catalog.load("constraints", "nm")()
    assert after.levels["2.weight"] == own.level == 2
    assert not feasible.contains(after.terms, after.levels, after.weights)


def test_pinned_is_asked_of_what_would_be_written_too() -> None:
    made = net([NM, REST], {"0": [3], "2": [5]})
    small = made.smaller(made.weights)
    assert [tuple(p.shape) for p in small.parameters() if p.dim() == 2] == [(16, 8), (11, 16), (3, 11)]


def test_of_dead_units_whole_blocks_go_where_single_ones_may_not() -> None:
    """2.weight is read in blocks of four inputs: 4 to 7 go, 3 would shift what is behind it and stays."""
    made = net([{"where": "2", "with": {"name": "blocks", "rows": 1, "cols": 4}}], {"0": [3, 4, 5, 6, 7, 9]})
    small = made.smaller(made.weights)
    assert [tuple(p.shape) for p in small.parameters() if p.dim() == 2] == [(12, 8), (12, 12), (3, 12)]


@pytest.mark.parametrize(
    ("name", "level", "held"),
    [("topk", {"nnz": 192}, 11 * 12), ("rows", {"keep": 9}, 9), ("blocks", {"nnz": 190}, 3 * 11)],
)
def test_a_set_goes_on_as_itself_at_what_is_left(name: str, level: dict[str, int], held: int) -> None:
    """Of 12 x 16 four columns go with dead units, one more is zero: at most 12 rows of 11 weights, 3 rows of blocks."""
    made = net([{"where": "2", "with": name}], {"0": [0, 1, 2, 3]})
    site = made.terms[0].site.name
    made.levels[site] = made.terms[0].constraint.parse_level(level, (12, 16))
    with torch.no_grad():
        made.module.get_parameter("2.weight")[:, 4] = 0.0
        made.module.get_parameter("2.weight").copy_(made.member(made.levels, made.weights)["2.weight"])
    after = cut(made, nets.example("mlp"))
    (term,) = after.terms
    assert term.constraint == made.terms[0].constraint
    assert term.level is None  # free: the budget may choose again
    assert after.levels == {site: held}
    assert not feasible.contains(after.terms, after.levels, after.weights)


def test_what_is_zero_stays_zero_after_a_cut() -> None:
    """The level is the tightest that the weights are in, or a trim would be priced at more than there is."""
    made = net([{"where": "2.weight", "with": "topk"}], {"0": [0, 1]}, {"2.weight": 100})
    after = cut(made, nets.example("mlp"))
    assert after.levels["2.weight"] == int(after.weights["2.weight"].count_nonzero()) < 100


def test_a_joint_set_goes_on_whole() -> None:
    joint = [{"where": "2.weight", "with": ["nm", "codebook"], "level": {"n": 2, "entries": 4}}]
    after = cut(net(joint, {"0": [8, 9, 10, 11], "2": [0]}), nets.example("mlp"))
    assert shapes(after) == [(12, 8), (11, 12), (3, 11)]
    assert after.terms[0].level == after.levels["2.weight"] == (2, 4)
    assert not feasible.contains(after.terms, after.levels, after.weights)


def test_channels_of_a_code_that_insists_on_sizes_stay_zero() -> None:
    """Rows that cannot be cut away are held by the set, and their biases with them."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.b(torch.relu(self.a(x)).reshape(-1, 6))
            return out

    torch.manual_seed(0)
    model = Fixed()
    with torch.no_grad():
        model.a.weight[[1, 4]] = 0.0
        model.a.bias[[1, 4]] = 0.0
    example = graph.settle(model, torch.randn(3, 4))
    traced = graph.trace(model, example)
    terms = Recipe.from_dict({"model": "m:m", "constrain": [{"with": "rows"}]}).build_terms(traced.sites, traced.groups)
    after = cut(Net(model, traced, terms, {t.site.name: 4 for t in terms}), example)
    if after.module.a.weight.shape[0] == 4:
        pytest.skip("torch's export does not see the literal")
    assert after.levels == {terms[0].site.name: 4}
    held = after.companions(after.weights)["a.bias"]
    assert held.tolist() == [True, False, True, True, False, True]


def test_given_levels_follow_the_net_between_legs() -> None:
    """More weights than the smaller layer has were asked of it before."""
    made = net([{"where": "2.weight", "with": "topk", "level": {"nnz": 190}}], {"0": list(range(8))})
    small = narrow(made, nets.example("mlp"), lambda traced: (replace(made.terms[0], site=traced.sites[2]),))
    assert shapes(small) == [(8, 8), (12, 8), (3, 12)]
    assert [(t.site.name, t.site.shape, t.level) for t in small.terms] == [("2.weight", (12, 8), 96)]


def test_no_set_is_named_outside_its_room() -> None:
    names, found = set(catalog.names("constraints")), []
    for path in sorted(SRC.rglob("*.py")):
        file = path.relative_to(SRC).as_posix()
        if file.split("/")[0] in ("constraints", "formats") or file in MAY_NAME:  # layouts and codecs have names too
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names and (file, node.value) not in MAY_NAME:
                found.append(f"{file}:{node.lineno} {node.value!r}")
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("secateur.constraints."):
                if (node.module or "").rpartition(".")[2].startswith("_"):  # no method: arithmetic that sets share
                    continue
                found.append(f"{file}:{node.lineno} {node.module}")
    assert not found


def test_a_set_that_bears_no_cut_goes_on_where_only_others_are_cut() -> None:
    """A set of supports answers None to every cut unless it says more: none of its own channels may be asked for."""
    from secateur.constraints.topk import TopK
    from secateur.contracts import Term
    from secateur.terms import cutting
    from secateur.types import Member, Site

    class Stubborn(TopK):
        def after_cut(self, *asked: Any) -> None:
            return None

    term = Term(Site("a", "linear", (3, 2), (Member("a"),)), Stubborn())
    sizes = {"a": (3, 2), "b": (2, 3)}

    def gone(tensor: str) -> dict[str, Any]:
        return {"edits": [{"tensor": tensor, "axis": 0, "size": sizes[tensor][0], "keep": [0]}]}

    assert cutting.after_cut(term, 4, sizes, gone("b")) == (term.constraint, 4)
    assert cutting.pinned([term], sizes, gone("b")) == set()
    assert cutting.pinned([term], sizes, gone("a")) == {("a", 0)}
