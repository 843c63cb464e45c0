"""PE-wise: whole tiles of kernels, alone and with ternary values."""

from typing import Any

import pytest
import torch
import written
from test_blocks import number

from secateur.constraints.all_of import AllOf
from secateur.constraints.kernels import Kernels
from secateur.constraints.pe_wise import PEWise
from secateur.constraints.uniform import Uniform
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def rule(constraint, masks, level):
    rows = number(masks.shape[1], constraint.rows, constraint.groups)
    n_in = max(masks.shape[2] // constraint.taps, 1)
    tiles = number(n_in, constraint.cols, 1)
    used = 0
    for i in set(rows):
        for j in set(tiles):
            cols = [c for c in range(masks.shape[2]) if tiles[c % n_in] == j]
            used = used + masks[:, [r for r, at in enumerate(rows) if at == i]][:, :, cols].any(axis=(1, 2))
    return used <= level


LAWS = [
    (constraint, brute_force.Supports(rule))
    for constraint in (PEWise(rows=2, cols=1), PEWise(rows=1, cols=1, taps=2), PEWise(rows=1, cols=2))
]


def test_a_tile_has_all_taps_of_its_kernels() -> None:
    """Two outputs, two inputs at two taps in tiles of 2 x 1; columns (tap, input)."""
    own = PEWise(rows=2, cols=1).on(written.site((2, 2, 2, 1)))
    w = torch.tensor([[3.0, 2.0, 0.0, 2.0], [0.0, 2.0, 0.0, 1.0]])  # 9 against 4 + 4 + 4 + 1
    assert own.project(w, 1).tolist() == [[0.0, 2.0, 0.0, 2.0], [0.0, 2.0, 0.0, 1.0]]

    class OneTap(PEWise):
        def _sums(self, matrix: Any) -> Any:
            return super()._sums(matrix * (torch.arange(matrix.shape[1]) < max(matrix.shape[1] // self.taps, 1)))

    with pytest.raises(AssertionError):
        check_constraint(OneTap(rows=1, cols=1, taps=2), oracle=brute_force.Supports(rule))


def test_one_kernel_a_tile_is_kernels() -> None:
    w = torch.randn(4, 18, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PEWise(1, 1, taps=9).project(w, 3), Kernels(taps=9).project(w, 3))


def test_ternary_tiles_take_the_scale_of_what_is_kept() -> None:
    joint = AllOf((PEWise(rows=1, cols=2), Uniform(min_bits=2, max_bits=2)))
    z = joint.project(torch.tensor([[4.0, -4.0, 1.0, 1.0]]), (1, 2))
    assert z.tolist() == [[4.0, -4.0, 0.0, 0.0]]


@pytest.mark.parametrize("tiles", [PEWise(), PEWise(4, 8)])
def test_the_file_stores_them_at_the_price_that_is_told(tiles: PEWise) -> None:
    written.check_estimate(tiles, written.CONV)
    written.check_estimate(tiles, written.DENSE)
