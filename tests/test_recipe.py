"""The recipe: units, overrides, nearest-known hints, site resolution."""

from pathlib import Path

import pytest

from secateur.budget import kinds
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.types import Member, Site

TEXT = """
model: secateur.zoo:lenet5
data: mnist
budget: {nbytes: 6KB, accuracy_drop: 0.1pt}
constrain:
  - {where: "*", exclude: fc2, with: [topk, codebook]}
  - {where: fc2, with: {name: topk}, level: {sparsity: 0.93}}
solver: {name: gradual, epochs: 20}
objective: [{name: task}, {name: distillation, weight: 0.5}]
"""


def site(name: str, shape: tuple[int, ...], op: str = "linear") -> Site:
    return Site(name, op, shape, (Member(name),))


SITES = [
    site("conv1.weight", (20, 1, 5, 5), "conv"),
    site("conv1.bias", (20,), "bias"),
    site("fc2.weight", (10, 500)),
    site("fc2.bias", (10,), "bias"),
]


def test_design_example_resolves() -> None:
    recipe = Recipe.from_text(TEXT)
    assert recipe.budget == {"nbytes": 6000.0, "accuracy_drop": 0.001}
    terms = {t.site.name: t for t in recipe.build_terms(SITES)}
    assert sorted(terms) == ["conv1.weight", "fc2.weight"]
    assert not terms["conv1.weight"].given
    assert terms["fc2.weight"].given
    assert terms["fc2.weight"].level == 350


def test_biases_only_when_named() -> None:
    recipe = Recipe.from_dict({"constrain": [{"where": "*.bias", "with": {"name": "codebook"}}]})
    assert [t.site.name for t in recipe.build_terms(SITES)] == ["conv1.bias", "fc2.bias"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("nbytes", "6KB", 6000),
        ("nbytes", "6KiB", 6144),
        ("nbytes", 12_345, 12_345),
        ("nbytes", 637_056 / 15, 42_470),
        ("nbytes", 1e16, 1e16),
        ("nnz", 1750, 1750),
        ("macs", "2M", 2e6),
        ("accuracy_drop", "0.5pt", 0.005),
    ],
)
def test_units(kind: str, text: object, value: float) -> None:
    assert kinds.parse(kind, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"budgett": {}}, "did you mean 'budget'"),
        ({"budget": {"nbytes": "6000"}}, "needs a unit"),
        ({"budget": {"nbytes": 0.5}}, "a positive value"),
        ({"budget": {"nbytes": True}}, "not a number"),
        ({"budget": {"nbites": "6KB"}}, "did you mean 'nbytes'"),
        ({"budget": {"accuracy_drop": 0.1}}, "pt"),
        ({"budget": {"nnz": "-5"}}, "not a number"),
        ({"solver": {"name": "gradul"}}, "did you mean 'gradual'"),
        ({"solver": {"name": "gradual", "epochz": 3}}, "no option 'epochz'"),
        ({"solver": {"name": "gradual", "epochs": -3}}, "epochs"),
        ({"solver": {"name": "gradual", "polish": 0.9}}, "exceed 1"),
        ({"training": {"batchsize": 3}}, "did you mean 'batch_size'"),
        ({"training": {"lr": -1}}, "training.lr"),
        ({"constrain": [{"wher": "*"}]}, "did you mean 'where'"),
        ({"constrain": [{"with": "topkk"}]}, "did you mean 'topk'"),
        ({"dense": {"lr": 0.1}}, "dense.epochs"),
    ],
)
def test_mistakes_are_named(raw: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe.from_dict(raw)


def test_pattern_that_matches_nothing_names_the_nearest() -> None:
    recipe = Recipe.from_dict({"constrain": [{"where": "fc22"}]})
    with pytest.raises(UsageError, match=r"matches no layer; did you mean 'fc2"):
        recipe.build_terms(SITES)


def test_overrides() -> None:
    recipe = Recipe.from_text(TEXT, ["solver.epochs=3", "constrain.1.level={sparsity: 0.5}", "training.lr=0.01"])
    assert recipe.epochs == 3
    assert recipe.training.lr == 0.01
    assert recipe.constrain[1].level == {"sparsity": 0.5}
    with pytest.raises(UsageError, match="key=value"):
        Recipe.from_text(TEXT, ["solver.epochs"])
    with pytest.raises(UsageError, match="not an index"):
        Recipe.from_text(TEXT, ["constrain.7.with=topk"])


def test_yaml_round_trip() -> None:
    recipe = Recipe.from_text(TEXT, ["seed=3"])
    dumped = recipe.to_yaml()
    assert "seed: 3" in dumped
    assert Recipe.from_text(dumped).to_yaml() == dumped


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']"])
def test_not_a_recipe(text: str) -> None:
    with pytest.raises(UsageError):
        Recipe.from_text(text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Recipe.from_file(tmp_path / "none.yaml")
