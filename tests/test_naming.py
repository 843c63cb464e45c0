"""Names: the same pattern is the same layer under every set; what can be named is listed, what cannot says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur import cli, graph
from secateur.errors import ConstraintError, UsageError
from secateur.recipe import Recipe, naming
from secateur.types import Member, Site

Capture = pytest.CaptureFixture[str]
SUPPORTS = ("topk", "uniform", "codebook", "rows")


class Residual(nn.Module):
    """The stem's and the second convolution's channels are added, so that they go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.block(x)).mean((2, 3)))


IMAGES = torch.zeros(2, 1, 6, 6)


class Words(nn.Module):
    """Weights of other kinds: looked up, recurrent."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell, self.head = nn.Embedding(12, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.words(x))[0][:, -1])


SENTENCES = torch.zeros(2, 3, dtype=torch.int64)


def named(
    pattern: str, method: str, exclude: str | None = None, net: type[nn.Module] = Residual, x: Tensor = IMAGES
) -> set[str]:
    """The weights on which a set acts."""
    traced = graph.trace(net().eval(), x)
    entry = {"where": pattern, "with": method, "exclude": exclude}
    terms = Recipe.from_dict({"constrain": [entry]}).build_terms(*traced.free)
    return {m.param for t in terms for m in t.site.members}


@pytest.mark.parametrize("method", SUPPORTS)
@pytest.mark.parametrize("pattern", ["block.0", "block.0.weight", "*.0", "block.0.*t"])
def test_a_pattern_names_the_same_layer_under_every_set(pattern: str, method: str) -> None:
    assert named(pattern, method) == {"block.0.weight"}


@pytest.mark.parametrize("pattern", ["stem", "stem.weight", "block.2", "block.2.weight", "stem.weight.channels"])
def test_channels_answer_to_every_weight_that_makes_them(pattern: str) -> None:
    assert named(pattern, "rows") == {"stem.weight", "block.2.weight"}


@pytest.mark.parametrize("method", SUPPORTS)
def test_what_is_excluded_may_have_no_channels(method: str) -> None:
    assert "head.weight" not in named("*", method, exclude="head")
    assert "block.0.weight" in named("*", method, exclude="head")
    assert "block.0.weight" not in named("*", method, exclude="block.0")


@pytest.mark.parametrize(
    ("pattern", "method", "said"),
    [
        (
            "hed",
            "topk",
            r"pattern 'hed' matches no layer; did you mean 'head'.*the model has stem.weight.*secateur sites",
        ),
        ("blok.0", "rows", r"matches no layer; did you mean 'block.[02]' or 'block.[02]'"),
        ("head", "rows", r"names head.weight, which has no channels that may be removed: it makes an output"),
        ("head.bias", "rows", r"names head.bias, which has no channels that may be removed: it is a bias"),
        ("stem.weight.channels", "topk", r"names removable channels, and this set acts on weights: name stem.weight"),
    ],
)
def test_a_pattern_that_names_nothing_says_what_it_could_have_been(pattern: str, method: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        named(pattern, method)


def test_channels_that_differ_within_one_layer_answer_to_its_name() -> None:
    parts = [Site(f"a.weight.channels{n}", "channels", (2,), (Member("a.weight"),)) for n in ("", ".1")]
    assert naming.match("a", None, parts, parts, "constrain[0]") == parts


class Everything(nn.Module):
    """A frozen layer, a part that forward does not use, and layers for all sets."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.spare = nn.Linear(3, 3)
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.frozen(x))))


def test_sites_lists_names_costs_and_sets() -> None:
    net = Everything()
    found = secateur.sites(net, torch.zeros(2, 6))
    rows = {s["name"]: s for s in found["sites"]}
    assert list(rows) == ["fc1.weight", "fc2.weight", "fc1.bias", "fc2.bias"]
    fc1, fc2 = rows["fc1.weight"], rows["fc2.weight"]
    assert (fc1["op"], fc1["shape"], fc1["n"], fc1["nbytes"], fc1["positions"], fc1["macs"]) == (
        *("linear", [8, 6], 48, 192, 1, 48),
    )
    assert {"topk", "uniform", "codebook", "rows"} <= set(fc1["sets"])
    assert "nm" not in fc1["sets"]  # 6 columns are no whole groups of 4
    assert "nm" in fc2["sets"]
    assert "rows" not in fc2["sets"]  # its rows are the outputs
    assert "rows" not in rows["fc1.bias"]["sets"]
    assert [(c["n"], c["weights"], c["readers"], c["with_them"]) for c in found["channels"]] == [
        (8, ["fc1.weight"], ["fc2.weight"], ["fc1.bias", "fc2.weight"])
    ]
    assert {x["name"]: (x["nbytes"], x["why"]) for x in found["left_out"]} == {
        "frozen.weight": (144, "frozen (requires_grad is False)"),
        "spare.weight": (36, "not used by forward in evaluation mode"),
    }
    json.dumps(found)
    text = str(found)
    assert all(name in text for name in (*rows, "frozen.weight", "not used by forward"))


@pytest.mark.parametrize(("net", "x"), [(Residual, IMAGES), (Words, SENTENCES)])
def test_every_set_that_is_listed_can_be_asked_for_and_no_other(net: type[nn.Module], x: Tensor) -> None:
    methods = {"topk", "nm", "uniform", "codebook", "rows", "inputs", "columns", "kernels", "lowrank"}
    methods |= {"blocks", "block_columns", "block_rows", "punched", "pe_wise", "gather_scatter", "crossbar"}
    methods |= {"patterns"} if net is Residual else {"units"}
    found = secateur.sites(net(), x)
    assert {m for s in found["sites"] for m in s["sets"]} == methods
    for site in found["sites"]:
        for method in site["sets"]:
            assert site["name"] in named(site["name"], method, net=net, x=x)
        for method in methods - set(site["sets"]):
            with pytest.raises((UsageError, ConstraintError)):
                named(site["name"], method, net=net, x=x)


def run(*argv: object) -> int:
    return cli._main([str(a) for a in argv])


def test_the_command_lists_a_zoo_model_and_a_recipes_model(tmp_path: Path, capsys: Capture) -> None:
    assert run("sites", "secateur.zoo:lenet300", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["shape"] for s in found["sites"][:3]] == [[300, 784], [100, 300], [10, 100]]
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: secateur.zoo:digits_cnn\ndata: digits\n")
    assert run("sites", recipe) == 0
    out = capsys.readouterr().out
    assert "what a recipe can name" in out
    assert "conv1.weight" in out


_MODELS = """
from torch import nn
def pair():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.fc = nn.Embedding(10, 4), nn.Linear(4 + 3, 2)
        def forward(self, tokens, x):
            import torch
            return self.fc(torch.cat([self.words(tokens).mean(1), x], 1))
    return Two()
"""


def test_the_command_traces_with_the_shapes_it_is_given(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two_inputs.py").write_text(_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    assert run("sites", "two_inputs:pair", "--shape", "5:int64", "--shape", "3", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"words.weight", "fc.weight"} <= {s["name"] for s in found["sites"]}
    for argv, said in (
        (["two_inputs:pair"], "needs inputs to trace it with: --shape"),
        (["two_inputs:pair", "--shape", "3xa"], "give the sizes of one example"),
        (["two_inputs:pair", "--shape", "3:Tensor"], "give the sizes of one example"),
        (["net.onnx"], "`secateur inspect net.onnx` lists those of a file"),
    ):
        assert run("sites", *argv) == 2
        assert said in capsys.readouterr().err
