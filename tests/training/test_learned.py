"""Learned step sizes: torch's own bits, the paper's gradient, a module that is afterwards what it was."""

import math

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import activations
from secateur.training import learned

ENDS = [(0, 255), (-128, 127)]


def torch_says(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, torch.zeros((), dtype=torch.int32), low, high)


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_the_bits_are_torchs(low: int, high: int) -> None:
    g = torch.Generator().manual_seed(0)
    for size in (0.003, 0.02, 1.7):
        scale = torch.tensor(size)
        x = torch.randn(4, 6, 5, 5, generator=g) * 2
        x[0] = torch.arange(150).reshape(6, 5, 5) * size / 2  # halfway between two codes, half of them
        for value in (x, x.contiguous(memory_format=torch.channels_last), x[:, ::2], torch.zeros(0, 3)):
            ours = learned.fake_quantize(value, scale, torch.zeros(()), low, high)
            assert torch.equal(ours, torch_says(value, scale, low, high))


@pytest.mark.parametrize(("low", "high"), ENDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_the_papers(low: int, high: int, layout: torch.memory_format) -> None:
    """By autograd through the formula, whose rounding passes gradients on; the scale's in log s and times g."""
    g = torch.Generator().manual_seed(1)
    x = (torch.randn(3, 8, 6, 6, generator=g) * 3).to(memory_format=layout).requires_grad_()
    scale = nn.Parameter(torch.tensor(0.02))
    weight = torch.randn(3, 8, 6, 6, generator=g)

    clamped = (x / scale).clamp(low, high)
    ((clamped + (clamped.round() - clamped).detach()) * scale * weight).sum().backward()
    assert x.grad is not None
    assert scale.grad is not None
    wanted_x, wanted = x.grad.clone(), float(scale.detach() * scale.grad) / math.sqrt(8 * 6 * 6 * high)
    x.grad, scale.grad = None, None

    (learned.fake_quantize(x, scale, torch.zeros(()), low, high) * weight).sum().backward()
    assert torch.allclose(x.grad, wanted_x)
    assert float(scale.grad) == pytest.approx(wanted, rel=1e-3)


def test_a_scale_that_is_too_wide_comes_down() -> None:
    """Plain Adam on the scale alone: the squared error ends near the best scale's."""
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(2))
    scale = nn.Parameter(torch.tensor(0.25))
    optimizer = torch.optim.Adam([scale], 1e-2)

    def error() -> Tensor:
        return (learned.fake_quantize(x, scale, torch.zeros(()), -128, 127) - x).square().sum()

    began = float(error().detach())
    for _ in range(300):
        optimizer.zero_grad()
        error().backward()
        before = {"s": scale.detach().clone()}
        optimizer.step()
        with torch.no_grad():
            learned.step_({"s": scale.detach()}, before)
    assert float(scale.detach()) > 0
    assert float(error().detach()) < 0.1 * began


def test_a_step_is_one_of_the_logarithm() -> None:
    scale = torch.tensor(0.5)
    before = {"s": scale.clone()}
    scale += 0.01
    learned.step_({"s": scale}, before)
    assert float(scale) == pytest.approx(0.5 * math.exp(0.01))
    before = {"s": scale.clone()}
    scale -= 7.0  # a wild step
    learned.step_({"s": scale}, before)
    assert float(scale) == pytest.approx(0.5 * math.exp(0.01 - 0.1))


class Interrupted(Exception):
    """Somewhere inside a training."""


@pytest.mark.parametrize("stopped", [False, True])
def test_the_module_is_afterwards_what_it_was(stopped: bool) -> None:
    made = activations.calls(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    grids = activations.find(made.module, [torch.zeros(2, 4)], ["0.weight", "2.weight"])
    module, _ = activations.rewrite(made, grids)
    names, code = learned.scales_of(module), module.code
    assert names == [g.scale for g in grids if g.nodes[0] != "input_1"]
    parameters = set(dict(module.named_parameters()))

    def inside() -> None:
        with learned.learning(module, names):
            assert {*names} <= dict(module.named_parameters()).keys()
            module(torch.ones(2, 4)).sum().backward()
            assert all(module.get_parameter(n).grad is not None for n in names)
            module.get_parameter(names[0]).data.fill_(0.5)
            if stopped:
                raise Interrupted

    if stopped:
        with pytest.raises(Interrupted):
            inside()
    else:
        inside()
    assert module.code == code
    assert set(dict(module.named_parameters())) == parameters
    assert [float(module.get_buffer(g.scale)) for g in grids] == [1.0, 0.5]
    assert not any(module.get_buffer(n).requires_grad for n in names)
