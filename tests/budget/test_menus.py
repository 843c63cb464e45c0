"""The general path: menus of bits, entries, N of M and pairs, against brute force."""

import itertools

import pytest
import torch
from torch import Tensor

from secateur.budget import menus
from secateur.budget.allocate import Allocator
from secateur.budget.meters.macs import MACs
from secateur.budget.meters.nbytes import NBytes
from secateur.budget.meters.nnz import NNZ
from secateur.constraints.all_of import AllOf
from secateur.constraints.codebook import Codebook
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Constraint, Meter, Term
from secateur.types import Limit, Member, Packing, Site


def problem(constraint: Constraint, **shapes: tuple[int, ...]) -> tuple[dict[str, Tensor], tuple[Term, ...]]:
    g = torch.Generator().manual_seed(0)
    weights = {k: torch.randn(*s, generator=g) * (1 + i) for i, (k, s) in enumerate(shapes.items())}
    sites = (Site(k, "linear", tuple(w.shape), (Member(k),), 3 + i) for i, (k, w) in enumerate(weights.items()))
    return weights, tuple(Term(s, constraint) for s in sites)


def by_force(weights: dict[str, Tensor], terms: tuple[Term, ...], meter: Meter, limit: float, least: int) -> float:
    """Smallest distance over all combinations of levels (dense included)."""
    found = []
    for t in terms:
        w = weights[t.site.name]
        curve, shape = t.constraint.distance(w), (w.shape[0], w.shape[1])
        levels = [v for v in (*t.constraint.levels(shape), None) if v is None or v >= least]
        found.append([(curve(v), menus.cost(meter, t.site, menus.packed(t.constraint, shape, v))) for v in levels])
    return min(sum(d for d, _ in c) for c in itertools.product(*found) if sum(x for _, x in c) <= limit)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize(
    ("constraint", "kind", "meter", "least"),
    [
        (Uniform(), "nbytes", NBytes(), 0),
        (Codebook(max_entries=12), "nbytes", NBytes(), 0),
        (NM(), "macs", MACs(), 1),
        (NM(), "nnz", NNZ(), 1),
    ],
)
def test_close_to_brute_force(constraint: Constraint, kind: str, meter: Meter, least: int, share: float) -> None:
    weights, terms = problem(constraint, a=(8, 16), b=(16, 16), c=(4, 32))
    dense = sum(meter.cost(t.site, Packing(t.site.n, t.site.n)) for t in terms)
    limit = max(share, 0.3 if kind != "nbytes" else 0.0) * dense
    levels = Allocator(terms, (Limit(kind, limit),))(weights, {})
    spent = sum(
        menus.cost(meter, t.site, menus.packed(t.constraint, (t.site.shape[0], t.site.shape[1]), levels[t.site.name]))
        for t in terms
    )
    reached = sum(t.constraint.distance(weights[t.site.name])(levels[t.site.name]) for t in terms)
    assert spent <= limit
    best = by_force(weights, terms, meter, limit, least)
    # Three sites with a handful of levels: between two corners of the hull a greedy fill may miss one step.
    assert best - 1e-9 <= reached <= 1.35 * best + 1e-9


@pytest.mark.parametrize("values", [Codebook(value_format="float16"), Uniform(), Codebook(max_entries=4)])
def test_pairs_share_the_budget(values: Constraint) -> None:
    weights, terms = problem(AllOf((TopK(), values)), conv=(50, 500), fc=(100, 400))
    last = float("inf")
    for limit in (300.0, 1500.0, 8000.0):
        plan = Allocator(terms, (Limit("nbytes", limit),)).predict(weights)
        assert 0 <= limit - plan.totals[0][2] < 0.01 * limit + 2
        distance = sum(r.distance for r in plan.rows)
        assert distance < last
        last = distance
        for r in plan.rows:
            assert isinstance(r.level, tuple)
            assert r.max_nbytes >= r.costs["nbytes"] - 32


def test_rows_of_coupled_channels_are_one_pool() -> None:
    g = torch.Generator().manual_seed(1)
    params = {
        "a": torch.randn(6, 3, generator=g),
        "b": torch.randn(2, 6, generator=g),
        "c": torch.randn(4, 5, generator=g),
    }
    group = Site("a.channels", "channels", (6,), (Member("a"), Member("b", axis=1)))
    plain = Site("c", "linear", (4, 5), (Member("c"),))
    levels = Allocator((Term(group, Rows()), Term(plain, Rows())), (Limit("nnz", 25),))(params, {})
    rows = [params["a"].square().sum(1) + params["b"].square().sum(0), params["c"].square().sum(1)]
    best = min(
        (float(sum(r.sort(descending=True).values[k:].sum() for r, k in zip(rows, (i, j), strict=True))), i, j)
        for i, j in itertools.product(range(1, 7), range(1, 5))
        if 5 * i + 5 * j <= 25
    )
    assert levels == {"a.channels": best[1], "c": best[2]}


def test_a_long_menu_is_not_walked() -> None:
    """400,000 levels, a few hundred prices."""
    weights, terms = problem(TopK(), fc=(500, 800))
    menus.packed.cache_clear()
    Allocator(terms, (Limit("nbytes", 20_000),))(weights, {})
    assert menus.packed.cache_info().misses < 1500


def test_a_menu_can_be_narrowed_to_one_value() -> None:
    weights, terms = problem(AllOf((TopK(), Codebook(min_entries=8, max_entries=8))), fc=(40, 50))
    levels = Allocator(terms, (Limit("nbytes", 400),))(weights, {})
    assert levels["fc"][1] == 8
