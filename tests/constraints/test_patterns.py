"""Patterns: the library of a net, the best shape of every kernel, and exactly so beside whole kernels."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import written
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur.constraints.all_of import AllOf
from secateur.constraints.kernels import Kernels
from secateur.constraints.patterns import Patterns
from secateur.contracts import Term
from secateur.errors import ConstraintError, UsageError
from secateur.export import membership
from secateur.testing import brute_force
from secateur.testing.constraints import check_constraint


def shapes_of(constraint: Patterns) -> list[set[int]]:
    if constraint.library:
        return [{t for t in range(constraint.taps) if p >> t & 1} for p in constraint.library]
    return [set(c) for c in itertools.combinations(range(constraint.taps), constraint.entries)]


def rule(constraint, masks, level):
    n_in = masks.shape[2] // constraint.taps
    good = np.ones(len(masks), bool)
    for row, c in itertools.product(range(masks.shape[1]), range(n_in)):
        kernel = masks[:, row, c::n_in]
        inside = np.zeros(len(masks), bool)
        for shape in shapes_of(constraint):
            inside |= ~kernel[:, [t for t in range(constraint.taps) if t not in shape]].any(axis=1)
        good &= inside
    return good


class Each(brute_force.Supports):
    """A product over its kernels: the sum of their own smallest distances."""

    def __call__(self, constraint, weight, level, h):
        if weight.shape[1] % constraint.taps:
            return None
        n_in = weight.shape[1] // constraint.taps
        pairs = ((weight[i : i + 1, c::n_in], h[i : i + 1, c::n_in]) for i in range(len(weight)) for c in range(n_in))
        return sum(super(Each, self).__call__(constraint, w, level, g) for w, g in pairs)


TWO = Patterns(entries=2, library=(0b0011, 0b0110, 0b1010), taps=4)
LAWS = [(TWO, Each(rule)), (Patterns(entries=2, taps=4), Each(rule)), (Patterns(entries=1, taps=3), Each(rule))]


def test_the_shape_with_the_most_energy_wins() -> None:
    """Taps 0 and 1, 1 and 2, or 1 and 3 of one kernel."""
    w = torch.tensor([[3.0, 1.0, 2.9, 0.0]])  # 10, 9.41, 1
    assert TWO.project(w, 2).tolist() == [[3.0, 1.0, 0.0, 0.0]]
    assert TWO.project(w, 2, torch.tensor([[1.0, 1.0, 2.0, 1.0]])).flatten()[0] == 0
    assert not TWO.contains(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), 2)
    assert TWO.contains(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), 2)  # part of a shape

    class First(Patterns):
        def _best(self, gain: Any) -> Any:
            return super()._best(gain * 0 + torch.arange(gain.shape[1], 0, -1))

    with pytest.raises(AssertionError):
        check_constraint(First(entries=2, library=TWO.library, taps=4), oracle=Each(rule))


def test_the_library_holds_what_the_net_has_most() -> None:
    """Three kernels of one natural shape, two of another, one of a third; columns (tap, input)."""
    often, seldom, once = [1, 9, 8, 1], [9, 1, 1, 8], [9, 8, 1, 1]
    layers = [torch.tensor([often, seldom, often]).float(), torch.tensor([once, seldom, often]).float()]
    asked = Patterns(entries=2, size=2, centre=False, taps=4)
    fitted = asked.fitted(layers)
    assert fitted.library == (0b0110, 0b1001)
    assert fitted.fitted(None) == asked
    assert fitted.fitted(layers[:1]) == fitted
    centred = Patterns(entries=2, size=9, taps=9).fitted([torch.rand(20, 18)])
    assert all(p >> 4 & 1 for p in centred.library)


@given(st.integers(0, 10**6), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_patterns_and_kernels_together_are_exact(seed: int, k: int) -> None:
    """Three kernels: every choice of k of them, every shape of each."""
    g = torch.Generator().manual_seed(seed)
    w, h = torch.randn(1, 12, generator=g, dtype=torch.float64), torch.rand(1, 12, generator=g, dtype=torch.float64)
    joint = AllOf((TWO, Kernels(taps=4)))
    z = joint.project(w, (2, k), h)
    gains = (h * w * w).reshape(4, 3)
    each = [[float(gains[sorted(shape), c].sum()) for shape in shapes_of(TWO)] for c in range(3)]
    best = max(sum(max(each[c]) for c in chosen) for chosen in itertools.combinations(range(3), k))
    assert float((h * (w - z) ** 2).sum()) == pytest.approx(float(gains.sum()) - best, abs=1e-12)
    assert joint.packing((1, 12), (2, k)).nnz == 2 * k


def test_kernels_that_are_too_small_are_refused_in_words() -> None:
    assert "take kernels" in str(Patterns().unfit(written.site((8, 8, 1, 1))))
    assert "take kernels" in str(Patterns().unfit(written.site((8, 8))))
    assert Patterns().unfit(written.site((8, 8, 3, 3))) is None
    joint = AllOf((Patterns(), Kernels()))
    assert joint.unfit(written.site((8, 8))) == Patterns().unfit(written.site((8, 8)))
    assert joint.unfit(written.site((8, 8, 3, 3))) is None
    assert "has 4 taps" in str(Patterns(entries=1, library=(0b100000,)).unfit(written.site((8, 8, 2, 2))))
    with pytest.raises(UsageError, match="has not 4 bits"):
        Patterns(library=(0b11,))
    with pytest.raises(ConstraintError, match="multiple of the 9 taps"):
        Patterns().project(torch.ones(2, 8), 4)
    with pytest.raises(ConstraintError, match=r"4\.\.4 is possible"):
        Patterns().parse_level({"entries": 5}, (4, 9))


@pytest.mark.parametrize("shape", [written.CONV, (64, 64, 3, 3)])
def test_the_file_stores_them_at_the_price_that_is_told(shape: tuple[int, ...]) -> None:
    place = written.site(shape)
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    matrix = w.movedim(1, -1).reshape(shape[0], -1)
    patterns = Patterns().on(place).fitted([matrix])
    assert len(patterns.library) == 8
    joint = AllOf((patterns, Kernels().on(place)))
    whole = shape[0] * shape[1]
    for own, level in ((patterns, 4), (joint, (4, whole // 2)), (joint, (4, whole // 5))):
        z = own.project(matrix, level)
        promise = own.packing(tuple(matrix.shape), level)
        assert int(z.count_nonzero()) == promise.nnz
        found = secateur.formats.measure(z.reshape(shape[0], 9, -1).transpose(1, 2).reshape(shape).contiguous().numpy())
        assert promise.estimate == pytest.approx(found.nbytes, rel=0.1)
        assert found.nbytes <= promise.max_nbytes


def test_a_record_is_what_the_recipe_asks_for_but_for_the_library() -> None:
    place = written.site((4, 2, 3, 3))
    asked = Term(place, Patterns(size=2).on(place), 4, True)
    fitted = replace(asked, constraint=asked.constraint.fitted([torch.rand(4, 18)]))
    row = json.loads(json.dumps(membership.to_record(fitted, 4, 0)))
    assert len(row["with"]["library"]) == 2
    assert membership.unfitted(row, asked) == membership.to_record(asked, 4, 0)
    assert membership.unfitted(row, fitted) == membership.to_record(fitted, 4, 0)
    assert membership.unfitted({**row, "with": {"name": "nothing"}}, asked) == {**row, "with": {"name": "nothing"}}


def test_a_run_takes_its_library_from_the_dense_net(tmp_path: Any) -> None:
    """Every layer follows the shapes of one library, and the report's sets are those of the recipe."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    train = [(torch.randn(4, 1, 8, 8), torch.randint(0, 2, (4,)))]
    entry = {"where": ["0", "2"], "with": {"name": "patterns", "size": 3}, "level": {"entries": 4}}
    found = secateur.compress(
        net, train, recipe={"constrain": [entry], "solver": {"name": "admm", "epochs": 1}}, on_progress=False
    )
    libraries = {tuple(row["with"]["library"]) for row in found.report["terms"]}
    assert [len(library) for library in libraries] == [3]
    taps = torch.cat([found.model[i].weight.detach().flatten(2).flatten(0, 1) for i in (0, 2)]) != 0
    library = libraries.pop()
    for support in (taps.long() << torch.arange(9)).sum(1).tolist():
        assert any(support & ~shape == 0 for shape in library)  # dead weights are zero as well
