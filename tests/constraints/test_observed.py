"""Scales of activations: what each observer makes of a sample, by hand; laws of the set on samples."""

from itertools import product
from typing import Any

import pytest
import torch

from secateur.constraints.observed import Observed
from secateur.errors import ConstraintError, UsageError

LAWS: list[Any] = []  # its matrix is a sample of which only the scale is stored: the laws that fit are below

SAMPLE = torch.tensor([[0.0, 1.0, -2.0, 4.0], [0.5, 8.0, -1.0, 3.0]])
EVERY = [
    Observed(observer=name, signed=signed)
    for name, signed in product(("minmax", "moving", "percentile", "mse"), (True, False))
]


def test_by_hand() -> None:
    assert Observed().scale(SAMPLE) == pytest.approx(8 / 127)
    assert Observed(signed=False).scale(SAMPLE.abs()) == pytest.approx(8 / 255)
    assert Observed(observer="moving").scale(SAMPLE) == pytest.approx((4 + 0.1 * (8 - 4)) / 127)
    far = torch.cat([torch.linspace(0, 1, 9999), torch.tensor([100.0])])[None]
    assert Observed(observer="percentile", percentile=99.0).scale(far) == pytest.approx(0.99 / 127, rel=1e-3)
    assert Observed().scale(far) == pytest.approx(100 / 127)
    assert Observed().scale(torch.zeros(2, 3)) == 1.0


def test_the_least_error_is_least() -> None:
    sample = torch.randn(4, 500, generator=torch.Generator().manual_seed(0)) ** 3

    def error(scale: float) -> float:
        codes = (sample.double() / scale).round().clamp(-127, 127)
        return float((sample.double() - codes * scale).square().sum())

    best = Observed(observer="mse").scale(sample)
    assert all(error(best) <= error(best * f) * (1 + 1e-6) for f in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    assert error(best) < error(Observed().scale(sample))


@pytest.mark.parametrize("constraint", EVERY, ids=str)
def test_laws(constraint: Observed) -> None:
    g = torch.Generator().manual_seed(1)
    for shape in ((1, 1), (3, 40), (2, 7)):
        sample = torch.randn(shape, generator=g) * 3
        sample = sample if constraint.signed else sample.abs()
        kept = sample.clone()
        z = constraint.project(sample, 8)
        assert torch.equal(sample, kept)
        assert torch.equal(z, constraint.project(sample, 8))
        assert constraint.contains(z, 8)
        assert torch.equal(constraint.project(z, 8), z)
        codes = z.double() / constraint.scale(sample)
        assert float((codes - codes.round()).abs().max()) < 1e-4
        assert int(codes.round().min()) >= constraint.ends[0]
        assert int(codes.round().max()) <= constraint.ends[1]
        assert torch.equal(constraint.freeze(z, 8).project(z), z)
        assert constraint.packing(shape, 8).n == 1  # the scale is what is stored
        assert constraint.contains(sample, None)
        assert torch.equal(constraint.project(sample, None), sample)


@pytest.mark.parametrize("constraint", EVERY, ids=str)
def test_bad_samples_are_refused(constraint: Observed) -> None:
    with pytest.raises(ConstraintError, match="NaN or infinite"):
        constraint.scale(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ConstraintError, match="no values"):
        constraint.scale(torch.zeros(0, 4))
    if not constraint.signed:
        with pytest.raises(ConstraintError, match="negative values on an unsigned grid"):
            constraint.scale(torch.tensor([[-1.0, 2.0]]))


def test_options_are_checked() -> None:
    for options, said in (
        ({"observer": "max"}, "minmax"),
        ({"percentile": 20}, "percentile"),
        ({"batches": 0}, "batch"),
    ):
        with pytest.raises(UsageError, match=said):
            Observed(**options)
