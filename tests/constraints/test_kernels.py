"""Kernels: all taps between an input and an output, in all or for every output."""

from typing import Any

import pytest
import torch
import written

from secateur.constraints.kernels import Kernels
from secateur.constraints.topk import TopK
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    n_in = max(masks.shape[2] // constraint.taps, 1)
    there = sum((masks[:, :, c::n_in].any(axis=2)[:, :, None] for c in range(n_in)), 0).sum(axis=2)
    return there.max(axis=1) <= level if constraint.per_row else there.sum(axis=1) <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (Kernels(), Kernels(taps=2), Kernels(taps=2, per_row=True))
]


def test_the_kernel_with_the_largest_energy_stays_whole() -> None:
    """One output, two inputs at two taps, columns (tap, input)."""
    own = Kernels().on(written.site((1, 2, 2, 1)))
    w = torch.tensor([[3.0, 2.5, 0.0, 2.5]])  # 9 against 12.5
    assert own.project(w, 1).tolist() == [[0.0, 2.5, 0.0, 2.5]]
    assert own.project(w, 1, torch.tensor([[2.0, 1.0, 1.0, 1.0]])).tolist() == [[3.0, 0.0, 0.0, 0.0]]
    assert own.freeze(own.project(w, 1), 1).project(torch.ones(1, 4)).tolist() == [[0.0, 1.0, 0.0, 1.0]]

    class FirstTap(Kernels):
        def _sums(self, matrix: Any) -> Any:
            return super()._sums(matrix * (torch.arange(matrix.shape[1]) < max(matrix.shape[1] // self.taps, 1)))

    with pytest.raises(AssertionError):
        check_constraint(FirstTap(taps=2), oracle=brute_force.Supports(rule))


def test_of_a_linear_layer_a_kernel_is_a_weight() -> None:
    w = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Kernels().project(w, 9), TopK().project(w, 9))
    assert Kernels().packing((5, 7), 9) == TopK().packing((5, 7), 9)


def test_every_output_keeps_as_many() -> None:
    w = torch.tensor([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])
    assert Kernels(per_row=True).project(w, 1).tolist() == [[9.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    assert Kernels(per_row=True).parse_level({"keep": 2}, (2, 3)) == 2
    assert Kernels().parse_level({"sparsity": 0.5}, (2, 3)) == 3


@pytest.mark.parametrize("kernels", [Kernels(), Kernels(per_row=True)])
def test_the_file_stores_them_at_the_price_that_is_told(kernels: Kernels) -> None:
    written.check_estimate(kernels, written.CONV)
    written.check_estimate(kernels, written.GROUPED, groups=2)
