"""What the loss says before the first step, against whole Hessians and the gradients of single examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.nets import batches, mlp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import Compressor
from secateur.errors import UnsupportedError, UsageError
from secateur.training import seeds, sensitivity
from secateur.training.calibration import Statistics

RECIPE: dict[str, Any] = {"constrain": {"with": "topk", "level": {"sparsity": 0.5}}, "solver": {"name": "one_shot"}}


def found(model: nn.Module, name: str, given: list[Any]) -> dict[str, Tensor]:
    params, g = dict(model.named_parameters()), seeds.generator(0, "calibrate", "signs")
    return sensitivity.measured({name}, params, lambda b: cross_entropy(model(b[0]), b[1]), lambda: given, g)[name]


def softmax_regression() -> tuple[nn.Linear, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(2, 3, generator=g))
    return model, torch.randn(5, 3, generator=g, dtype=torch.float64), torch.randint(0, 2, (5,), generator=g)


def test_hutchinson_comes_to_the_diagonal_of_the_hessian() -> None:
    model, x, y = softmax_regression()
    whole = torch.autograd.functional.hessian(lambda w: cross_entropy(x @ w.T, y), model.weight.detach())
    whole = whole.reshape(6, 6)
    diagonal, n = whole.diagonal(), 400
    spread = (whole.square().sum(dim=1) - diagonal.square()).sqrt() / n**0.5
    gap = (found(model, "curvature", [(x, y)] * n)["weight"].flatten() - diagonal).abs()
    assert bool((gap <= 4 * spread).all()), (gap, spread)
    assert bool((4 * spread < diagonal).all())  # the bound says something


def test_a_diagonal_hessian_is_exact_at_one_draw() -> None:
    model = nn.Linear(2, 2, bias=False)
    curved = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    found = sensitivity.hessian_diagonal(
        dict(model.named_parameters()), lambda b: (curved * model.weight**2).sum() / 2, [None], torch.Generator()
    )
    torch.testing.assert_close(found["weight"], curved)
    straight = sensitivity.hessian_diagonal(
        dict(model.named_parameters()), lambda b: model.weight.sum(), [None], torch.Generator()
    )
    assert not bool(straight["weight"].any())


def test_fisher_is_of_single_examples() -> None:
    model, x, y = softmax_regression()
    by_hand = torch.zeros(2, 3, dtype=torch.float64)
    for row, label in zip(x, y, strict=True):
        error = torch.softmax(model.weight @ row, 0).detach()
        error[label] -= 1.0
        by_hand += torch.outer(error, row).square() / len(x)
    torch.testing.assert_close(found(model, "fisher", [(x[:2], y[:2]), (x[2:], y[2:])])["weight"], by_hand)


def test_inputs_that_do_not_agree_are_one_example() -> None:
    nodes = ((torch.ones(4, 2), torch.zeros(2, 7)), torch.ones(4))
    assert len(list(sensitivity.examples(nodes))) == 1
    rows = list(sensitivity.examples(({"a": torch.arange(6.0).view(3, 2)}, torch.arange(3))))
    assert [len(rows), rows[2][0]["a"].tolist(), rows[2][1].tolist()] == [3, [[4.0, 5.0]], [2]]


def test_sensitivity_is_the_slope_of_a_mask() -> None:
    model, x, y = softmax_regression()
    mask = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy(x @ (mask * model.weight.detach()).T, y), mask)
    torch.testing.assert_close(found(model, "sensitivity", [(x, y)])["weight"], slope.abs())


def test_what_cannot_be_differentiated_twice_is_told() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *g: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * g[0]

    model = nn.Linear(2, 2, bias=False)
    with pytest.raises(UnsupportedError, match="take the saliency fisher"):
        sensitivity.hessian_diagonal(
            dict(model.named_parameters()), lambda b: Once.apply(model.weight).square().sum(), [None], torch.Generator()
        )


def test_movement_is_of_the_weights_before_the_step() -> None:
    w = torch.tensor([2.0, -1.0], requires_grad=True)
    kept = Statistics({"w": w}, means={"w": torch.tensor([0.5, 0.5])}, moving=True)
    assert kept("w", "movement").tolist() == [-1.0, 0.5]  # type: ignore[union-attr]
    w.grad = torch.tensor([1.0, 3.0])
    kept.before_step()
    assert kept("w", "movement").tolist() == [-3.0, 3.5]  # type: ignore[union-attr]
    again = Statistics({"w": w}, moving=True)
    assert again("w", "movement") is None
    again.load_state_dict(*kept.state_dict())
    assert again("w", "movement").tolist() == [-3.0, 3.5]  # type: ignore[union-attr]


@pytest.mark.parametrize(("saliency", "needs"), [("hessian", "curvature"), ("fisher", "fisher"), ("snip", "sens")])
def test_the_users_own_loop_gives_loss_and_data(saliency: str, needs: str) -> None:
    net, data = mlp(), batches(64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recipe = {**RECIPE, "saliency": saliency}

    def made(**given: Any) -> Compressor:
        return Compressor(net, recipe, torch.randn(2, 8), optimizer=optimizer, total_steps=4, **given)

    with pytest.raises(UsageError, match=rf"needs {needs}.*loss=.*calibration="):
        made(calibration=data)
    with pytest.raises(UsageError, match="only once"):
        made(calibration=iter(data), loss=cross_entropy)
    compressor = made(calibration=data, loss=cross_entropy)
    statistic = next(iter(compressor._recipe.needs))
    assert torch.equal(compressor._stats("fc1.weight", statistic), found(mlp(), statistic, data)["fc1.weight"])
    assert 0 < int(net.fc1.weight.count_nonzero()) <= 48  # one-shot has pruned by it


def test_the_users_own_loop_counts_movement() -> None:
    net, data = mlp(), batches(64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recipe = {**RECIPE, "solver": {"name": "gradual", "every": 1}, "saliency": "movement"}
    compressor = Compressor(net, recipe, torch.randn(2, 8), optimizer=optimizer, total_steps=4)
    before = net.fc1.weight.detach().clone()
    optimizer.zero_grad()
    cross_entropy(net(data[0][0]), data[0][1]).backward()
    gain = -before * net.fc1.weight.grad
    optimizer.step()
    compressor.step()
    assert torch.equal(compressor._stats("fc1.weight", "movement"), gain)
