"""Statistics of what comes into a layer, against the layer's own outputs; and who may ask for them."""

from __future__ import annotations

import pytest
import torch
from tests.training.nets import mlp
from torch import nn

from secateur import Compressor
from secateur.contracts import STATISTICS
from secateur.errors import UsageError
from secateur.recipe import Recipe
from secateur.solvers.gradual import Gradual
from secateur.training import calibration
from secateur.training.inputs import Inputs

LAYERS = {
    "linear": (nn.Linear(5, 4), (7, 5)),
    "linear over time": (nn.Linear(5, 4), (3, 2, 5)),
    "conv": (nn.Conv2d(4, 6, 3), (3, 4, 7, 6)),
    "strided, padded, dilated": (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), dilation=(2, 1)), (3, 4, 9, 8)),
    "same, reflected": (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), (3, 4, 7, 6)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), (3, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (3, 4, 7, 6)),
    "conv over time": (nn.Conv1d(4, 6, 3, stride=2, groups=2), (3, 4, 9)),
}


@pytest.mark.parametrize("label", LAYERS)
def test_the_gram_matrix_gives_the_energy_of_the_outputs(label: str) -> None:
    """Sum over examples and positions of (W x)^2 is 1/2 sum of w H w^T over the rows."""
    layer, shape = LAYERS[label]
    net = nn.Sequential(layer)
    g = torch.Generator().manual_seed(0)
    batches = [torch.randn(shape, generator=g) for _ in range(2)]
    inputs = Inputs(net, lambda: batches)
    gram = inputs.gram("0.weight").double()
    with torch.no_grad():
        w = layer.weight.double().reshape(gram.shape[0], -1, gram.shape[1])
        bias = (
            layer.bias.reshape(-1, *[1] * (len(shape) - 2)) if label.startswith(("conv", "s", "g", "d")) else layer.bias
        )
        energy = sum(float((layer(x) - bias).double().square().sum()) for x in batches) / (2 * shape[0])
    assert float(((w @ gram) * w).sum()) / 2 == pytest.approx(energy, rel=1e-5)
    norm = inputs.norm("0.weight").double()
    assert norm.shape == layer.weight.shape
    rows = (gram.diagonal(dim1=1, dim2=2) / 2).sqrt().repeat_interleave(len(w[0]), dim=0)
    torch.testing.assert_close(norm.reshape(rows.shape), rows, rtol=1e-5, atol=1e-6)


def test_gram_matrices_see_the_weights_as_they_are_and_modes_come_back() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Dropout(), nn.Linear(3, 2)).train()
    told: list[int] = []
    inputs = Inputs(net, lambda: [torch.ones(4, 3)], lambda: told.append(1))
    before = inputs.gram("2.weight")
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    torch.testing.assert_close(inputs.gram("2.weight"), 4 * before)
    assert net[1].training
    assert len(told) == 2


def test_every_statistic_is_measured() -> None:
    assert calibration._MEASURED.keys() == STATISTICS.keys()


def test_what_has_no_inputs_is_named() -> None:
    inputs = Inputs(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), lambda: [])
    with pytest.raises(UsageError, match=r"1\.bias.*exclude="):
        inputs.norm("1.bias")
    with pytest.raises(UsageError, match=r"0\.weight.*BatchNorm1d"):
        inputs.gram("0.weight")
    with pytest.raises(UsageError, match="was not called"):
        inputs.gram("1.weight")


def test_a_statistic_that_nothing_measures_is_refused_with_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gradual, "needs", frozenset({"third_moment"}))
    with pytest.raises(UsageError, match=r"solver: gradual needs the statistic 'third_moment'.*known: second_moment"):
        Recipe.from_dict({"solver": {"name": "gradual"}})


@pytest.mark.parametrize("recipe", [{"solver": "obs"}, {"saliency": "wanda"}])
def test_the_users_own_loop_needs_calibration_data(recipe: dict[str, str]) -> None:
    net = mlp()
    recipe |= {"constrain": {"with": "topk", "level": {"sparsity": 0.5}}}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"Compressor.*needs input_.*calibration="):
        Compressor(net, recipe, torch.randn(2, 8), optimizer=optimizer, total_steps=4)
    batches = [torch.randn(16, 8)]
    with pytest.raises(UsageError, match="only once"):
        Compressor(net, recipe, torch.randn(2, 8), optimizer=optimizer, total_steps=4, calibration=iter(batches))
    made = Compressor(net, recipe, torch.randn(2, 8), optimizer=optimizer, total_steps=4, calibration=batches)
    small = made.finalize().model
    for name, w in small.named_parameters():
        if w.dim() == 2:
            assert 2 * int(w.count_nonzero()) <= dict(mlp().named_parameters())[name].numel()
