"""Codebook: exact 1-D k-means, hand-checked and against Lloyd and brute force."""

import pytest
import torch

from secateur.constraints import _levels as levels
from secateur.constraints.codebook import Codebook
from secateur.errors import ConstraintError, UsageError
from secateur.testing import brute_force


def oracle(constraint, weight, level, h):
    symbols = level + (constraint.zero == "free")
    if symbols**weight.size > brute_force.MOST_WORDS:
        return None
    words = brute_force.words(symbols, weight.size)
    return float(brute_force.clustered(words, level, weight.ravel(), h.ravel()).min())


LAWS = [
    (constraint, oracle)
    for constraint in (
        Codebook(min_entries=1, max_entries=4),
        Codebook(min_entries=1, max_entries=3, zero="free"),
        Codebook(min_entries=1, max_entries=4, value_format="float16"),
        Codebook(min_entries=1, max_entries=4, mantissa_bits=5),
        Codebook(),
        Codebook(min_entries=1, max_entries=3, exact_below=40),
    )
]


def test_two_groups() -> None:
    w = torch.tensor([[0.0, 1.0, 10.0], [12.0, 0.5, 11.0]])
    assert Codebook().project(w, 2).tolist() == [[0.5, 0.5, 11.0], [11.0, 0.5, 11.0]]


def test_lloyd_would_be_stuck_here() -> None:
    """Three far groups, two of them close in mass: starts at quantiles get caught, the recursion does not."""
    w = torch.tensor([[-1.01, -1.0, -0.99, 0.0, 100.0, 100.01]], dtype=torch.float64)
    assert Codebook().distance(w)(3) == pytest.approx(2 * 0.01**2 + 2 * 0.005**2)


def test_free_zero_stays_and_costs_nothing() -> None:
    w = torch.tensor([[-0.1, 0.1, 5.0, 7.0, -5.0]])
    free = Codebook(zero="free")
    assert free.project(w, 2).tolist() == [[0.0, 0.0, 6.0, 6.0, -5.0]]
    assert free.contains(free.project(w, 2), 2)
    assert not Codebook().contains(free.project(w, 2), 2)


def test_importance_pulls_the_centre() -> None:
    w, h = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 1.0]])
    assert Codebook().project(w, 1, h).tolist() == [[0.25, 0.25]]


def test_unimportant_weights_do_not_shape_the_codebook() -> None:
    w, h = torch.tensor([[1.0, 2.0, 50.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert Codebook().project(w, 2, h).tolist() == [[1.0, 2.0, 2.0]]


def test_halfway_goes_to_the_lower_value() -> None:
    weight = torch.tensor([[-1.0, 1.0, 0.0]])
    h = torch.tensor([[1.0, 1.0, 0.0]])
    assert Codebook(min_entries=1).project(weight, 2, h).tolist() == [[-1.0, 1.0, -1.0]]


def test_half_precision_values() -> None:
    w = torch.linspace(-1, 1, 40).reshape(4, 10)
    z = Codebook(value_format="float16").project(w, 5)
    assert torch.equal(z, z.half().float())
    assert z.unique().numel() == 5


def test_large_tensors_are_close_to_exact() -> None:
    w = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for m in (2, 7, 16):
        exact, coarse = Codebook().distance(w)(m), Codebook(exact_below=100).distance(w)(m)
        assert exact <= coarse + 1e-9
        assert coarse <= 1.01 * exact
    free, coarse = Codebook(zero="free").distance(w)(8), Codebook(zero="free", exact_below=100).distance(w)(8)
    assert free - 1e-9 <= coarse <= 1.01 * free


def test_levels_and_options() -> None:
    assert Codebook().parse_level({"bits": 4}, (3, 3)) == 16
    assert Codebook().parse_level({"entries": 5}, (3, 3)) == 5
    with pytest.raises(ConstraintError, match="entries"):
        Codebook(max_entries=8).parse_level({"bits": 4}, (3, 3))
    for options in ({"zero": "maybe"}, {"value_format": "float8"}, {"min_entries": 0}, {"max_entries": 0}):
        with pytest.raises(UsageError, match="codebook"):
            Codebook(**options)


def test_packing() -> None:
    p = Codebook(value_format="float16").packing((10, 10), 16)
    assert (p.bits, p.n_values, p.entry_bits, p.nnz) == (4.0, 16, 16, 100)


def test_freeze_ties_values() -> None:
    z = torch.tensor([[1.0, 2.0, 1.0, 0.0]])
    piece = Codebook(zero="free").freeze(z, 2)
    moved = piece.project(torch.tensor([[1.0, 5.0, 3.0, 7.0]]))
    assert moved.tolist() == [[2.0, 5.0, 2.0, 0.0]]
    with pytest.raises(ConstraintError, match="member"):
        Codebook().freeze(z, 2)


def test_few_mantissa_bits() -> None:
    w = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    z = Codebook(value_format="float16", mantissa_bits=4).project(w, 8)
    mantissa, _ = torch.frexp(z)
    assert torch.equal(mantissa * 32, (mantissa * 32).round())  # 1 implied + 4 stored bits
    full = Codebook().project(w, 8)
    assert float((w - z).square().sum()) < 1.05 * float((w - full).square().sum())
    with pytest.raises(UsageError, match="mantissa_bits"):
        Codebook(value_format="float16", mantissa_bits=11)


def test_the_default_menu_begins_at_four_entries_but_fewer_may_be_given() -> None:
    w = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert list(Codebook(max_entries=6).levels((1, 5))) == [4, 5, 6]
    assert list(Codebook(max_entries=2).levels((1, 5))) == [2]
    assert Codebook().parse_level({"entries": 1}, (1, 5)) == 1
    assert Codebook().project(w, 1).unique().tolist() == [3.0]
    with pytest.raises(ConstraintError, match="menu"):
        Codebook(min_entries=3).project(w, 2)


@pytest.mark.parametrize("n", [0, 1, 1000, 50_000])
def test_distinct_values_are_those_of_a_sort(n: int) -> None:
    """Also the value that no sample sees, and more values than asked for."""
    generator = torch.Generator().manual_seed(n)
    for values in (1, 3, 40):
        x = torch.randint(values, (1, n), generator=generator).float() - 1
        if n > 20:
            x[0, 17] = 99.0
        want = torch.unique(x)
        for most in (1, 2, 4, 41):
            found = levels.distinct(x, most)
            assert (found is None) == (want.numel() > most)
            assert found is None or torch.equal(found, want)
