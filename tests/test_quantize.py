"""The section `quantize`: lists, one entry a site, bits that the budget picks, calibration data that are no data."""

from typing import Any

import pytest
import torch
from tests.test_activations import compressed, mlp, trained
from tests.test_recipe import SITES

from secateur import catalog
from secateur.engine.inspect import inspect
from secateur.errors import SecateurError, UsageError
from secateur.recipe import Recipe
from secateur.training.observing import observe

GOOD = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def changed(at: Any, value: float) -> torch.Tensor:
    x = GOOD.clone()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no batches"),
        ([GOOD, GOOD[:0]], "input 'input' has no values; leave out empty batches"),
        ([GOOD, changed((2, 1, 0, 0), float("nan"))], "input 'input' has 1 values that are NaN or infinite"),
        ([changed((slice(None), 0), float("inf"))], "input 'input' has 256 values that are NaN or infinite"),
        ([torch.zeros_like(GOOD), torch.zeros_like(GOOD)], "every value of input 'input' is the same, 0"),
        (
            [changed((slice(None), 1), 0.5), changed((slice(None), 1), 0.5)],
            "channel 1 of the 3 of input 'input' has one value, 0.5, in all 2 batches",
        ),
    ],
)
def test_data_that_are_no_data_are_named(batches: list[torch.Tensor], said: str) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    module = torch.fx.symbolic_trace(net)
    names = [n.name for n in module.graph.nodes if n.op != "output"]
    with pytest.raises(SecateurError, match=said):
        observe(module, names, [(x, None) for x in batches])


def test_what_is_good_enough_is_taken() -> None:
    """A channel that is alive in one batch; features of which some never change (the rim of a picture); one example."""
    module = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)))
    names = [n.name for n in module.graph.nodes if n.op != "output"]
    seen = observe(module, names, [(changed((slice(None), 1), 0.5), None), (GOOD, None)])
    assert all(list(v.shape) == [2, 4098] for v in seen.values())
    flat = GOOD.flatten(1).clone()
    flat[:, :9] = 0.0
    assert observe(module, names, [(flat[:1], None)])


def terms(**recipe: Any) -> dict[str, Any]:
    made = Recipe.from_dict(recipe)
    return {t.site.name: t for t in made.build_terms(SITES)}


def test_a_list_says_each_layer_once() -> None:
    both = [{"where": "conv1", "weights": 4}, {"where": "fc2", "observer": "mse"}]
    found = terms(quantize=both)
    assert {name: (t.level, t.given) for name, t in found.items()} == {
        "conv1.weight": (4, True),
        "fc2.weight": (8, True),
    }
    seen = Recipe.from_dict({"quantize": both}).build_activations(SITES)
    assert {name: c.observer for name, c in seen.items()} == {"conv1.weight": "minmax", "fc2.weight": "mse"}  # type: ignore[attr-defined]


def test_bits_that_the_budget_picks() -> None:
    for weights, dense in (([8, 4, "float"], True), ([4, 8], False)):
        for t in terms(quantize={"weights": weights}, budget={"nbytes": "3KB"}).values():
            assert list(t.constraint.levels((10, 500))) == [4, 8]
            assert not t.given
            assert t.constraint.may_stay_dense is dense


def resolve(recipe: dict[str, Any]) -> None:
    made = Recipe.from_dict(recipe)
    made.build_terms(SITES)
    made.build_activations(SITES)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"quantize": [{}, {"where": "fc2"}]}, r"quantize\[1\]: quantize\[0\] acts on fc2.weight already; name"),
        (
            {"quantize": {"where": "conv*"}, "constrain": {"where": "*", "with": "codebook"}},
            r"quantize\[0\]: constrain\[0\] acts on conv1.weight already; write both sets there",
        ),
        (
            {"quantize": {"weights": None}, "constrain": {"where": "fc2", "with": "observed"}},
            r"quantize\[0\]: constrain\[0\] acts on fc2.weight already",
        ),
        ({"quantize": {"keep_float": ["fc3"]}}, r"quantize\[0\]: pattern 'fc3' matches no layer; did you mean 'fc2'"),
        ({"quantize": {"where": "conv1", "keep_float": "conv1"}}, "leaves no layer"),
        ({"quantize": {"weights": 9}}, "bits from 2 to 8"),
        ({"quantize": {"weights": "float"}}, "bits from 2 to 8"),
        ({"quantize": {"weights": ["float"]}}, "bits from 2 to 8"),
        ({"quantize": {"weights": [4, 4]}}, "each once"),
        ({"quantize": {"weights": []}}, "bits from 2 to 8"),
        ({"quantize": {"weights": None, "activations": None}}, "asks for nothing"),
    ],
)
def test_mistakes_are_named(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve(recipe)


def kernels(found: Any) -> list[bool]:
    return ["s8_u8_s32" in row["kernel"] for row in inspect(found.files.sct)["layers"] if row["op"] == "Gemm"]


@pytest.mark.parametrize(("nbytes", "integers"), [(2700, 3), (5000, 2), (20000, 0)])
def test_the_budget_picks_bits_and_floats(nbytes: int, integers: int) -> None:
    """What is left as it was reads floats, and the report says so; everything else runs in integers."""
    asked = {"weights": [4, 8, "float"], "activations": 8}
    found = compressed(trained(mlp), quantize=asked, budget={"nbytes": nbytes})
    assert found.report["compressed"]["nbytes"] <= nbytes
    assert found.report["verify"]["agree"], found.report["verify"]
    levels = [row["level"] for row in found.report["terms"]]
    assert set(levels) <= {4, 8, None}
    assert kernels(found) == [level is not None for level in levels]
    assert sum(kernels(found)) == integers
    said = [note for note in found.report["notes"] if "the budget leaves these layers in float" in note]
    assert len(said) == (integers < 3)


def test_without_float_no_layer_stays_so() -> None:
    found = compressed(trained(mlp), quantize={"weights": [4, 8]}, budget={"nbytes": 20000})
    assert [row["level"] for row in found.report["terms"]] == [8, 8, 8]
    assert kernels(found) == [True] * 3


ROWS = {"name": "uniform", "per": "row"}
JOINT = {
    "topk": (["topk", ROWS], {"sparsity": 0.7, "bits": 8}),
    "blocks": ([{"name": "blocks", "rows": 1, "cols": 4}, ROWS], {"sparsity": 0.6, "bits": 8}),
}
# Those left out refuse single weights; of blocks one solver of each kind.
TAKES = [("topk", s) for s in catalog.names("solvers") if s not in ("mask_sparsity", "subp")]
TAKES += [("blocks", s) for s in ("admm", "gradual", "obs", "one_shot", "scl", "sr_ste")]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return trained(mlp)


@pytest.mark.parametrize(("sets", "solver"), TAKES)
def test_zeros_and_codes_on_one_site(net: torch.nn.Module, sets: str, solver: str) -> None:
    """Through every solver: what was pruned stays so, layers run in integers, the file holds codes in few bytes."""
    with_, level = JOINT[sets]
    found = compressed(
        net,
        constrain=[{"where": "*", "with": with_, "level": level}],
        quantize={"weights": None, "activations": 8, "calibration": {"batches": 3}},
        solver={"name": solver, "epochs": 1},
    )
    report = found.report
    assert report["verify"]["agree"], report["verify"]
    assert kernels(found) == [True] * 3
    weights = [row for row in report["layers"] if row["name"].endswith(".weight")]
    assert len(weights) == 3
    for row in weights:
        w = found.model.get_parameter(row["name"]).detach()  # without the units that died
        kept = (1 - level["sparsity"]) * net.get_parameter(row["name"]).numel()
        assert int((w != 0).sum()) == row["nnz"] <= kept
        assert row["codec"] == "ints"
        assert row["nbytes"] <= row["bound_nbytes"] + 8
    assert found.verify()["passed"]


def test_what_a_solver_cannot_do_is_said_before_any_work(net: torch.nn.Module) -> None:
    rule = {"where": "*", "with": "rows", "level": {"sparsity": 0.5}}
    with pytest.raises(SecateurError, match=r"obs has the rest of a row make up .* exclude it or change solver"):
        compressed(net, constrain=[rule], solver={"name": "obs", "epochs": 1})
