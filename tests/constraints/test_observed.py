"""Scales of activations: what each observer makes of a sample, by hand; laws of the set on samples."""

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from secateur.constraints._observers import OBSERVERS, scale_of
from secateur.constraints.observed import Observed
from secateur.errors import ConstraintError, UsageError

LAWS: list[Any] = []  # its matrix is a sample of which only the scale is stored: the laws that fit are below

SAMPLE = torch.tensor([[0.0, 1.0, -2.0, 4.0], [0.5, 8.0, -1.0, 3.0]])
EVERY = [Observed(observer=name, signed=signed) for name, signed in product(OBSERVERS, (True, False))]


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


def entropy_by_definition(size: Any, n: int) -> float:
    """The edge of the least divergence: bins shared out one by one, as the talk has it."""
    counts, edges = np.histogram(size, 2048, (0.0, size.max()))
    bins = counts.astype(float)
    bins[0] = bins[1]
    found: list[tuple[float, int]] = []
    for i in range(n, 2049):
        total, live = [0.0] * n, [0] * n
        for j in range(i):
            total[j * n // i] += bins[j]
            live[j * n // i] += bins[j] > 0
        p = np.append(bins[: i - 1], bins[i - 1 :].sum())
        q = np.array([total[j * n // i] / live[j * n // i] if bins[j] else 0.0 for j in range(i)])
        with np.errstate(divide="ignore"):
            parts = p[p > 0] / p.sum() * np.log(p[p > 0] / p.sum() / (q[p > 0] / q.sum()))
        found.append((float(parts.sum()), -i))
    return float(edges[-min(found)[1]])


def test_entropy_is_as_defined() -> None:
    sample = np.random.default_rng(0).standard_normal((4, 600)) ** 3
    found = scale_of("entropy", sample, True)
    assert found == pytest.approx(entropy_by_definition(np.abs(sample), 128) / 127)
    assert found < scale_of("minmax", sample, True)


def test_entropy_cuts_off_what_is_far_and_ignores_zeros() -> None:
    dense = np.abs(np.random.default_rng(1).standard_normal((1, 20000)))
    far = np.concatenate([dense, [[40.0]]], axis=1)
    assert scale_of("entropy", far, True) * 127 < 20
    zeros = np.concatenate([far, np.zeros((1, 30000))], axis=1)
    assert scale_of("entropy", zeros, True) == scale_of("entropy", far, True)
    assert scale_of("entropy", np.zeros((2, 5)), True) == 1.0


def test_observers_need_no_torch() -> None:
    code = "import sys, secateur.constraints._observers; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
