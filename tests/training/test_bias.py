"""Bias correction: mean outputs are those of before the rounding, and low-bit nets get better by it."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.solvers.test_obs import digits
from torch import Tensor, nn

from secateur import Compressor, catalog, graph
from secateur.contracts import Constraint, Term
from secateur.errors import CheckError, UsageError
from secateur.recipe import Recipe
from secateur.terms import views
from secateur.training import bias
from secateur.training.phases import write
from secateur.types import Member, Site, Solution


def rounded(net: nn.Module, example: Tensor, constraint: Constraint, level: int) -> nn.Module:
    out = copy.deepcopy(net)
    params = dict(out.named_parameters())
    with torch.no_grad():
        for s in graph.trace(net, (example,)).sites:
            if s.op in ("conv", "linear"):
                z = constraint.project(views.matrix(s, constraint.view, params), level)
                params[s.name].copy_(views.write(s, constraint.view, params, z)[s.name])
    return out


def test_mean_outputs_come_back_layer_after_layer() -> None:
    dense, seen, _, _ = digits(0)
    net = rounded(dense, seen[:2], catalog.load("constraints", "uniform")(), 3)
    batches = seen.split(300)
    names = ["0", "2", "6", "8"]
    before = {k: v.clone() for k, v in net.named_parameters()}
    wanted = bias.means(dense, names, lambda: batches)
    off = bias.means(net, names, lambda: batches)
    assert all(float((off[n] - wanted[n]).abs().max()) > 1e-3 for n in names)
    biases = bias.corrected(net, dense, lambda: batches, fixed={"6.bias"})
    assert list(biases) == ["0.bias", "2.bias", "8.bias"]
    assert all(torch.equal(p, before[k]) for k, p in net.named_parameters())
    write(dict(net.named_parameters()), (), Solution(biases, {}))
    found = bias.means(net, names, lambda: batches)
    for name in ("0", "2", "8"):
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-5)
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name]) == (name not in ("0.bias", "2.bias", "8.bias"))


def test_readers_take_over_what_a_layer_without_a_bias_makes_wrong() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    net, seen = copy.deepcopy(dense), torch.randn(200, 6)
    with torch.no_grad():
        net[0].weight += 0.3
    assert graph.trace(net, seen[:2]).sites[0].readers == ("2.weight",)
    biases = bias.corrected(net, dense, lambda: [seen])
    write(dict(net.named_parameters()), (), Solution(biases, {}))
    assert list(biases) == ["2.bias"]
    with torch.no_grad():
        torch.testing.assert_close(net(seen).mean(0), dense(seen).mean(0), rtol=0, atol=1e-6)


def test_an_answer_names_parameters_and_holds_members() -> None:
    """Any parameter may be written, of a term or not; otherwise nothing is."""
    net = nn.Linear(4, 2)
    params, before = dict(net.named_parameters()), {k: p.detach().clone() for k, p in net.named_parameters()}
    term = Term(Site("weight", "linear", (2, 4), (Member("weight"),)), catalog.load("constraints", "topk")())
    zeros = {k: torch.zeros_like(p) for k, p in before.items()}
    with pytest.raises(CheckError, match=r"weight: .* not at level 3"):
        write(params, (term,), Solution({"weight": torch.ones(2, 4), "bias": zeros["bias"]}, {"weight": 3}))
    with pytest.raises(CheckError, match=r"scale: .* this is none of them"):
        write(params, (term,), Solution({"bias": zeros["bias"], "scale": torch.ones(1)}, {"weight": 3}))
    assert all(torch.equal(p, before[k]) for k, p in params.items())
    write(params, (term,), Solution({"bias": zeros["bias"]}, {"weight": 3}))
    assert torch.equal(net.bias, zeros["bias"])
    assert torch.equal(net.weight, before["weight"])


@pytest.mark.parametrize(("name", "level"), [("uniform", 3), ("codebook", 4)])
def test_low_bits_lose_less_with_it(name: str, level: int) -> None:
    lost = {True: 0.0, False: 0.0}
    for seed in range(3):
        dense, seen, x, y = digits(seed)
        net = rounded(dense, seen[:2], catalog.load("constraints", name)(), level)
        for corrected in (False, True):
            if corrected:
                biases = bias.corrected(net, dense, lambda seen=seen: seen.split(300))
                write(dict(net.named_parameters()), (), Solution(biases, {}))
            with torch.no_grad():
                lost[corrected] += float(nn.functional.cross_entropy(net(x), y))
    assert lost[True] < lost[False]


def test_the_recipe_asks_for_it() -> None:
    assert not Recipe.from_dict({}).bias_correction
    recipe = Recipe.from_dict({"solver": {"name": "one_shot", "bias_correction": True}})
    assert recipe.bias_correction
    with pytest.raises(UsageError, match="true or false"):
        Recipe.from_dict({"solver": {"name": "one_shot", "bias_correction": 1}})
    net = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"Compressor: solver\.bias_correction"):
        Compressor(net, recipe, torch.ones(2, 2), optimizer=torch.optim.SGD(net.parameters(), 0.1), total_steps=2)


def test_a_run_with_no_epochs_is_corrected() -> None:
    from secateur import compress

    dense, seen, x, y = digits(0)
    train = [(i, dense(i).argmax(1)) for i in seen.split(300)]
    valid = [(x, y)]
    biases = {}
    for asked in (False, True):
        recipe = {
            "solver": {"name": "one_shot", "epochs": 0, "bias_correction": asked},
            "constrain": {"with": "codebook", "level": {"entries": 4}},
            "baselines": [],
            "bench": {"against": [], "seconds": 0.001},
        }
        biases[asked] = compress(dense, train, valid=valid, recipe=recipe, on_progress=False).model[0].bias
    assert torch.equal(biases[False], dense[0].bias)
    assert not torch.allclose(biases[True], dense[0].bias, atol=1e-4)
