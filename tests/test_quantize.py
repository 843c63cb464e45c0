"""The section `quantize`: lists, one entry a site, bits that the budget picks, calibration data that are no data."""

from typing import Any

import pytest
from tests.test_activations import compressed, mlp, trained
from tests.test_recipe import SITES

from secateur.engine.inspect import inspect
from secateur.errors import UsageError
from secateur.recipe import Recipe


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
