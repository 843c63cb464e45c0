"""Sets that change the form: layers stored, counted, priced, trained and run as two."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import secateur
from secateur import graph
from secateur.budget import kinds
from secateur.constraints.lowrank import LowRank
from secateur.contracts import Term
from secateur.data.tensors import TensorData
from secateur.errors import FormatError, UsageError
from secateur.export import membership, written
from secateur.export.membership import Asked
from secateur.graph import counts, factors
from secateur.types import Chain

FAST = {"bench": {"seconds": 0.01, "against": []}, "baselines": [], "training": {"threads": 1, "lr": 3e-3}}
RULE = {"where": ["conv2", "fc1"], "with": "lowrank"}


class Net(nn.Module):
    """Digits: two convolutions, the second strided and with a norm behind it, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 12, 3, stride=2, padding=1, bias=False)
        self.norm, self.fc1, self.fc2 = nn.BatchNorm2d(12), nn.Linear(192, 40), nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv2(torch.relu(self.conv1(x)))))
        out: Tensor = self.fc2(torch.relu(self.fc1(x.flatten(1))))
        return out


def digits(part: slice) -> TensorData:
    found = load_digits()
    x = torch.from_numpy(found.data[part]).float().reshape(-1, 1, 8, 8) / 16
    return TensorData(x, torch.from_numpy(found.target[part]), batch_size=64)


TRAIN, VALID = digits(slice(0, 1280)), digits(slice(1280, 1797))


@pytest.fixture(scope="module")
def trained() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(3):
            for x, y in TRAIN:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
    return net.eval()


def compressed(net: nn.Module, budget: dict[str, Any], **rule: Any) -> secateur.Result:
    recipe = {"constrain": [{**RULE, **rule}], "solver": {"name": "one_shot", "epochs": 2}, **FAST}
    return secateur.compress(net, TRAIN, valid=VALID, recipe=recipe, budget=budget)


# The layers in two -------------------------------------------------------------------------------------------------
class Twice(nn.Module):
    """One layer that is called twice, and registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.relu(self.a(x)))
        return out


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "linear": (nn.Sequential(nn.Linear(7, 9)), (3, 7), "0"),
    "linear, no bias, over time": (nn.Sequential(nn.Linear(7, 9, bias=False)), (3, 5, 7), "0"),
    "conv1d": (nn.Sequential(nn.Conv1d(4, 6, 3, dilation=2)), (2, 4, 11), "0"),
    "conv2d": (nn.Sequential(nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0))), (2, 4, 9, 8), "0"),
    "conv2d, same": (nn.Sequential(nn.Conv2d(4, 6, 3, padding="same", bias=False)), (2, 4, 5, 5), "0"),
    "conv2d, circular": (nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")), (2, 4, 5, 5), "0"),
    "conv3d": (nn.Sequential(nn.Conv3d(2, 5, 2)), (2, 2, 3, 4, 3), "0"),
    "twice": (Twice(), (3, 6), "a"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("n", [2, 3])
def test_a_chain_of_layers_computes_the_product(name: str, n: int) -> None:
    model, shape, layer = LAYERS[name]
    model = model.double()
    g = torch.Generator().manual_seed(0)
    weight = model.get_parameter(f"{layer}.weight")
    ends = (weight.shape[0], *((2, 3)[: n - 1]), weight.numel() // weight.shape[0])
    made = [torch.randn(a, b, generator=g, dtype=torch.float64) for a, b in pairwise(ends)]
    x = torch.randn(*shape, generator=g, dtype=torch.float64)
    with torch.no_grad():
        weight.copy_(torch.linalg.multi_dot(made).reshape(weight.shape))
    wanted = model(x)
    nothing = {"version": 1, "edits": [], "biases": {}, "pads": []}
    small, surgery = graph.factored(model, nothing, {f"{layer}.weight": Chain(tuple(made))})
    torch.testing.assert_close(small(x), wanted)
    assert not hasattr(model.get_submodule(layer), "0"), "the model that was given is another one now"
    again = graph.apply_surgery(model, json.loads(json.dumps(surgery)))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), wanted)
    stored = factors.names_of(f"{layer}.weight", dict(small.named_parameters()))
    assert stored == tuple(f"{layer}.{i}.weight" for i in range(n))


@pytest.mark.parametrize(
    "row",
    [
        {"module": "nowhere", "ranks": [1]},
        {"module": "norm", "ranks": [1]},
        {"module": "fc1", "ranks": [10**12]},
        {"module": "fc1", "ranks": []},
        {"module": "fc1", "ranks": [0]},
        {"module": "fc1"},
    ],
)
def test_a_damaged_record_of_layers_in_two_is_refused(row: dict[str, Any]) -> None:
    record = {"version": 2, "edits": [], "biases": {}, "pads": [], "factors": [row]}
    with pytest.raises(FormatError, match="surgery"):
        graph.apply_surgery(Net(), record)


def measured(module: nn.Module, traced: graph.Traced) -> dict[str, float]:
    return kinds.measured(counts.inventory(module, traced, lambda: 0))


def test_counts_and_prices_of_a_split_net_are_those_of_its_file(trained: Net) -> None:
    example = graph.settle(trained, VALID.inputs[:2], True)
    traced = graph.trace(trained, example)
    terms = tuple(Term(s, LowRank(), 3, True) for s in traced.sites if s.name in ("conv2.weight", "fc1.weight"))
    with torch.no_grad():
        for t in terms:
            w = trained.get_parameter(t.site.name)
            near = LowRank().project(w.reshape(w.shape[0], -1), 3)
            weights = {t.site.name: near.reshape(w.shape)}
            files = written.write(trained, traced, example, weights, terms=[t])
            counted = measured(files.module, traced)
            assert counted == measured(files.module, graph.trace(files.module, example))
            dense = written.Template(written.write(trained, traced, example).onnx)
            assert abs(dense.nbytes(files.module, [t]) - len(files.sct)) <= 4
            rows, cols = near.shape
            saved = (rows * cols - 3 * (rows + cols)) * t.site.positions
            assert counted["macs"] == measured(trained, traced)["macs"] - saved


# Whole runs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "budget",
    [{"nbytes": "12KB"}, {"nnz": "2500"}, {"macs": "13000"}, {"params": "3000"}, {"accuracy_drop": "3pt"}],
    ids=str,
)
def test_every_budget_holds_and_the_files_pass_verify(trained: Net, budget: dict[str, Any], tmp_path: Path) -> None:
    result = compressed(trained, budget)
    assert all(row["met"] for row in result.report["budget"]), result.report["budget"]
    assert result.report["compressed"]["metric"]["value"] > 0.85
    assert type(result.model.fc1) is nn.Sequential
    folder = result.save(tmp_path / "run")
    found = result.verify()
    assert found["passed"], found
    again = secateur.load(folder, Net())
    assert torch.equal(again(VALID.inputs), result.model(VALID.inputs))
    report = result.report
    rows = {row["name"]: row for row in report["layers"]}
    assert rows["fc1.0.weight"]["constraint"] == rows["fc1.1.weight"]["constraint"] == "lowrank"
    assert sum(r["macs"] for r in rows.values()) == report["compressed"]["macs"] < report["dense"]["macs"]
    assert sum(r["macs_dense"] for r in rows.values()) == report["dense"]["macs"]


def test_given_levels_hold_in_the_written_product(trained: Net) -> None:
    result = compressed(trained, {}, level={"rank": 2})
    assert [m.out_features for m in result.model.fc1] == [2, 40]
    assert [m.out_channels for m in result.model.conv2] == [2, 12]
    asked = result.report["terms"]
    assert [row["level"] for row in asked] == [2, 2]
    for level, outside in ((2, 0), (1, 2)):
        rows = [{**row, "level": level} for row in asked]
        found = [
            line
            for row in rows
            for line in membership.outside(membership.from_record(row), result.files.onnx, result.files.surgery)
        ]
        assert len(found) == outside, found


def test_retraining_is_better_than_the_projection_alone(trained: Net) -> None:
    """One rank in each layer ruins the net; training both factors of each begins to bring it back."""
    report = compressed(trained, {}, level={"rank": 1}).report
    losses = [row["valid_loss"] for row in report["history"] if "polish" in row["stage"]]
    assert len(losses) == 2
    assert losses[1] < 0.99 * losses[0]


def test_the_plan_shows_ranks_and_what_they_save(trained: Net) -> None:
    found = secateur.plan(trained, TRAIN, valid=VALID, recipe={"constrain": [RULE], **FAST}, budget={"macs": "13000"})
    rows = {row["name"]: row for row in found["layers"]}
    assert rows.keys() == {"conv2.weight", "fc1.weight"}
    assert all(row["constraint"] == "lowrank" and row["macs"] > 0 and row["nbytes"] > 0 for row in rows.values())
    assert found["macs"] <= 13000
    sets = {row["name"]: row["sets"] for row in secateur.sites(trained, VALID.inputs[:2])["sites"]}
    assert "lowrank" in sets["conv2.weight"]
    assert "lowrank" not in sets["fc1.bias"]


def test_compressor_trains_both_factors_in_the_users_loop(trained: Net) -> None:
    torch.manual_seed(0)
    model = Net()
    model.load_state_dict(trained.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = 40
    compressor = secateur.Compressor(
        model,
        {"constrain": [{**RULE, "level": {"rank": 2}}], "solver": {"name": "one_shot"}, **FAST},
        VALID.inputs[:2],
        optimizer=optimizer,
        total_steps=steps,
    )
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    made = 0
    for _ in range(2):
        for x, y in TRAIN:
            loss = nn.functional.cross_entropy(model(x), y) + compressor.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            compressor.step()
            made += 1
    assert made == steps
    start, end = (w.detach().reshape(40, -1).double() for w in (before["fc1.weight"], model.fc1.weight))
    assert LowRank().contains(end.float(), 2)
    for of in (lambda w: w, lambda w: w.T):  # neither the columns' space nor the rows' is the one of the projection
        u = torch.linalg.svd(of(start))[0][:, :2]
        assert float((of(end) - u @ (u.T @ of(end))).norm()) > 1e-2 * float(end.norm())
    result = compressor.finalize()
    assert [m.out_features for m in result.model.fc1] == [2, 40]
    assert result.report["verify"]["agree"]


# Refusals ------------------------------------------------------------------------------------------------------------
class Reads(nn.Module):
    """Code that uses its layers otherwise than by calling them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.fc, self.out = how, nn.Linear(12, 12), nn.Linear(12, 4)
        if how == "tied":
            self.also = nn.Linear(12, 12)
            self.also.weight = self.fc.weight
        if how == "hook":
            self.fc.register_forward_hook(lambda m, i, o: 2 * o)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "functional":
            x = nn.functional.linear(x, self.fc.weight, self.fc.bias)
        elif self.how == "attribute":
            x = self.fc(x) / self.fc.in_features
        else:
            x = self.fc(x)
        if self.how == "tied":
            x = self.also(torch.relu(x))
        out: Tensor = self.out(torch.relu(x))
        return out


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("functional", "the code reads it itself"),
        ("attribute", "does not run with two layers"),
        ("tied", "other layers share it|the code reads it itself"),
        ("hook", "forward hooks"),
    ],
)
def test_a_layer_that_the_code_needs_whole_is_refused_before_any_work(how: str, said: str) -> None:
    g = torch.Generator().manual_seed(0)
    data = TensorData(torch.randn(64, 12, generator=g), torch.randint(0, 4, (64,), generator=g), batch_size=32)
    recipe = {"constrain": [{"where": "fc", "with": "lowrank", "level": {"rank": 2}}], **FAST}
    with pytest.raises(UsageError, match=said):
        secateur.compress(Reads(how), data, valid=data, recipe=recipe)


def test_two_sets_that_cannot_be_one_are_refused_with_the_reason(trained: Net) -> None:
    with pytest.raises(UsageError, match="lowrank stores other tensors"):
        compressed(trained, {"nnz": "2500"}, **{"with": ["topk", "lowrank"]})


def test_layers_in_two_and_activations_on_grids_are_not_for_one_net(trained: Net) -> None:
    recipe = {"constrain": [{**RULE, "level": {"rank": 2}}], "quantize": {"weights": None, "activations": 8}, **FAST}
    with pytest.raises(UsageError, match="to be stored as two layers, and activations"):
        secateur.compress(trained, TRAIN, valid=VALID, recipe=recipe)


def test_a_product_is_undone_from_its_factors() -> None:
    g = np.random.default_rng(0)
    a, b = g.normal(size=(2, 3, 3, 3)), g.normal(size=(5, 2, 1, 1))
    cut = {"edits": [], "factors": [{"module": "c", "ranks": [2]}]}
    full, there = membership._uncut({"c.0.weight": a, "c.1.weight": b, "c.1.bias": np.ones(5)}, [cut])
    np.testing.assert_allclose(full["c.weight"], np.einsum("or,rcij->ocij", b[..., 0, 0], a))
    assert full["c.bias"].tolist() == [1.0] * 5
    assert there["c.weight"].all()
    assert Asked((), {}).n_cuts == 0
