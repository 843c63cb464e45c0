"""The proximal step of the envelope: optimal, known in its limits, non-expansive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.solvers.wgsef import Wgsef, shrunk


def envelope(x: Tensor, d: Tensor, k: int) -> float:
    """S_k by the minimum over u that defines it: bisection for the scale that makes the u sum to k."""
    y = d.sqrt() * x.abs()
    if int((y > 0).sum()) <= k:
        return float(0.5 * y.square().sum())
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * y).clamp(max=1).sum()) < k else (low, middle)
    u = (high * y).clamp(1e-300, 1)
    return float(0.5 * (y.square() / u).sum())


@pytest.mark.parametrize("seed", range(8))
def test_no_point_nearby_is_better(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    n = 3 + seed % 6
    k, strength = 1 + seed % n, 0.05 + 0.2 * seed
    t, d = torch.randn(n, generator=g).double(), 0.3 + torch.rand(n, generator=g).double()
    x = t * shrunk(t.abs(), d, strength, k)

    def cost(z: Tensor) -> float:
        return strength * envelope(z, d, k) + float(0.5 * (z - t).square().sum())

    for i in range(40):
        z = x + torch.randn(n, generator=g).double() * 10.0 ** -(i % 5)
        assert cost(z) >= cost(x) - 1e-9, f"seed {seed}, trial {i}"


def test_its_limits() -> None:
    norms, d = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0, 1.0])
    torch.testing.assert_close(shrunk(norms, d, 0.5, 4), 1 / (1 + 0.5 * d))  # all may stay: ridge
    strong = shrunk(norms, torch.ones(4), 1e4, 2)
    torch.testing.assert_close(strong, torch.tensor([1.0, 1.0, 0.0, 0.0]) / (1 + 1e4))  # two stay, whole: top-k
    assert shrunk(norms, d, 0.5, 0).tolist() == [0.0] * 4
    assert shrunk(torch.zeros(3), torch.ones(3), 0.5, 1).tolist() == [0.0] * 3


def test_by_hand() -> None:
    # a = 3 and 1, b = 1: clip(3 alpha - 1) + clip(alpha - 1) = 1 at alpha = 2/3, u = (1, 0).
    torch.testing.assert_close(shrunk(torch.tensor([3.0, 1.0]), torch.ones(2), 1.0, 1), torch.tensor([0.5, 0.0]))
    # a = 1 and 1: both u = 1/2, x = t / 3.
    torch.testing.assert_close(shrunk(torch.ones(2), torch.ones(2), 1.0, 1), torch.full((2,), 1 / 3))


def test_two_points_do_not_move_apart() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        a, b = torch.randn(2, 9, generator=g).double()
        near = [t * shrunk(t.abs(), torch.ones(9).double(), 0.7, 3) for t in (a, b)]
        assert float((near[0] - near[1]).norm()) <= float((a - b).norm()) + 1e-12


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="strength"):
        Wgsef(strength=-1.0)
