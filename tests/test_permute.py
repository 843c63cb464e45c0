"""Channels in a better order: the same network, found exactly, worth energy; kept where the code tells them apart."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import nn

import secateur
from secateur import graph
from secateur.recipe import Recipe
from secateur.run import permute
from secateur.testing import nets as small


class Residual(nn.Module):
    """A norm, a residual sum, a depthwise layer and a flatten between the readers of one group."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.depth = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, groups=8)
        self.up, self.head = nn.Conv2d(8, 6, 2), nn.Linear(6 * 2 * 2, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.up(self.depth(x + torch.relu(self.body(x)))))
        return self.head(x.flatten(1))


def sets(module: nn.Module, example: torch.Tensor, with_: object, level: object = None) -> tuple[graph.Traced, list]:
    traced = graph.trace(module, example)
    entry = {"with": with_} | ({} if level is None else {"level": level})
    terms = Recipe.from_dict({"model": "m:m", "constrain": [entry]}).build_terms(traced.sites, traced.groups)
    return traced, permute._sets(terms)


def best_order(module: nn.Module, example: torch.Tensor, with_: object, level: object) -> dict[str, list[int]]:
    traced, found = sets(module, example, with_, level)
    energies = {k: p.detach().double().square() for k, p in module.named_parameters()}
    return permute._orders({g.name: g for g in traced.coupling.groups}, found, energies, lambda: None)


def test_any_order_of_every_group_computes_the_same() -> None:
    model, x = Residual().eval(), torch.randn(3, 2, 5, 5)
    traced = graph.trace(model, x)
    generator = torch.Generator().manual_seed(1)
    orders = {g.name: torch.randperm(g.shape[0], generator=generator).tolist() for g in traced.coupling.groups}
    moved, kept = graph.reorder(model, traced, orders)
    assert kept == []
    assert not torch.equal(moved.norm.running_mean, model.norm.running_mean)
    assert torch.equal(moved.norm.running_mean, model.norm.running_mean[orders["stem.weight.channels"]])
    assert torch.allclose(moved(x), model(x), atol=1e-5)
    x = torch.randn(2, 2, 5, 5)
    assert torch.allclose(moved.train()(x), model.train()(x), atol=1e-5)


def test_an_order_that_changes_the_answer_is_not_taken() -> None:
    """A coupling that has forgotten the group's readers: what reads the channels would find others."""
    model, x = Residual().eval(), torch.randn(3, 2, 5, 5)
    traced = graph.trace(model, x)
    whole = traced.coupling
    broken = tuple(replace(g, removes=tuple(m for m in g.removes if m.axis == 0)) for g in whole.groups)
    traced.__dict__["coupling"] = replace(whole, groups=broken)
    orders = {g.name: list(reversed(range(g.shape[0]))) for g in broken}
    moved, kept = graph.reorder(model, traced, orders)
    assert kept == list(orders)
    assert torch.equal(moved(x), model(x))


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("side", ["cols", "rows"])
def test_the_order_found_is_nearly_the_best_of_all(side: str, per_row: bool) -> None:
    """Six hidden channels in blocks of two, every order tried; the readers' inputs or the producers' outputs count."""
    with_ = {"name": "blocks", "rows": 1, "cols": 1, side: 2, "permute": True, "per_row": per_row}
    shares = []
    for seed in range(8):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.pow_(5)  # few large weights: the order matters
        found = best_order(model, torch.randn(2, 4), with_, {"sparsity": 0.5})
        name = "2.weight" if side == "cols" else "0.weight"
        _, made = sets(model, torch.randn(2, 4), with_, {"sparsity": 0.5})
        own = next(s for s in made if s.site.name == name)
        energy = dict(model.named_parameters())[name].detach().double().square()
        plain = list(range(6))

        def kept(order: object, own=own, energy=energy, name=name) -> float:
            return own.kept({name: energy[:, list(order)] if side == "cols" else energy[list(order)]})

        every = max(kept(order) for order in permutations(plain))
        got = kept(found.get("0.weight.channels", plain))
        assert got >= kept(plain) - 1e-12
        shares.append((got, every, kept(plain)))
    lost = sum(every - got for got, every, _ in shares)
    gained = sum(got - before for got, _, before in shares)
    assert gained > 0
    assert lost <= 0.4 * (gained + lost), f"swaps found {gained:.3f} of {gained + lost:.3f}"


def test_strong_channels_that_stand_apart_are_brought_together() -> None:
    """Every second input of a convolution is nearly zero; with a joint set, a residual sum and a norm before it."""
    model = Residual().eval()
    with torch.no_grad():
        model.body.weight[:, ::2] *= 1e-3
        model.depth.weight[::2] *= 1e-3
    with_ = [{"name": "blocks", "rows": 1, "cols": 4, "permute": True}, {"name": "uniform", "per": "row"}]
    level = {"blocks": {"sparsity": 0.5}, "uniform": {"bits": 8}}
    order = best_order(model, torch.randn(3, 2, 5, 5), with_, level)["stem.weight.channels"]
    assert {frozenset(i % 2 for i in order[:4]), frozenset(i % 2 for i in order[4:])} == {
        frozenset({0}),
        frozenset({1}),
    }


def test_a_run_reorders_says_so_and_meets_its_sets() -> None:
    model, x = small.mlp(), torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    batches = [(x[i : i + 16], x[i : i + 16, :3].argmax(dim=1)) for i in range(0, 64, 16)]
    constrain = [{"with": {"name": "blocks", "rows": 1, "cols": 4, "permute": True}, "level": {"sparsity": 0.75}}]
    recipe = {"constrain": constrain, "solver": {"name": "one_shot", "epochs": 1}, "baselines": []}
    result = secateur.compress(model, batches, valid=batches, recipe=recipe, on_progress=False)
    stage = next(s for s in result.report["stages"] if s["name"] == "permute")
    assert stage["energy_after"] > stage["energy_before"]
    assert any("channels were reordered" in n for n in result.report["notes"])
    checks = result.verify()["checks"]
    assert any("sets" in c["name"] or "constraint" in c["name"] for c in checks), [c["name"] for c in checks]
    assert not [c for c in checks if c["passed"] is False]


def test_an_own_loop_reorders_the_users_module_in_place() -> None:
    model = small.mlp()
    with torch.no_grad():
        model.get_parameter(next(n for n, p in model.named_parameters() if p.dim() == 2)).pow_(3)
    (example,) = small.example("mlp")
    before, was = model.eval()(example), {k: p.clone() for k, p in model.named_parameters()}
    constrain = [{"with": {"name": "blocks", "rows": 1, "cols": 4, "permute": True}, "level": {"sparsity": 0.5}}]
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    recipe = {"constrain": constrain, "solver": {"name": "gradual"}}
    secateur.Compressor(model, recipe, example, optimizer=optimizer, total_steps=10)
    assert any(not torch.equal(p, was[k]) for k, p in model.named_parameters())
    assert torch.allclose(model(example), before, atol=1e-5)
