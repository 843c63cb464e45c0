"""Laws of a meter: limits read back as written, prices grow with what is kept, measuring confirms the estimates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from secateur import catalog, graph
from secateur.budget.machine import Machine
from secateur.budget.menus import cost, packed
from secateur.contracts import Meter, Term
from secateur.engine.latency import ANY, Row, Table
from secateur.export import written
from secateur.formats import pack
from secateur.graph.counts import inventory
from secateur.terms import feasible, views
from secateur.testing import nets
from secateur.types import Inventory, Level, Member, Packing, Site, Weight

WITHIN = 0.1  # of an estimate that training moves (`margin`): the error that a plan is allowed
LOWERED_BY = {"values": "topk", "weights": "topk", "channels": "rows"}  # a set that lowers it
LIMITS = (1.0, 7.0, 1750.0, 1_200_000.0, 12_345_678.0)
NO_LIMITS: tuple[Any, ...] = ("many", "", "5 parsecs", "1.2.3B", True, None, [], "-5")
SITES = (
    Site("fc", "linear", (6, 8), (Member("fc"),)),
    Site("conv", "conv", (6, 2, 2, 2), (Member("conv"),), positions=25),
    Site("table", "embedding", (6, 8), (Member("table"),), positions=0),
    Site("fc.channels", "channels", (6,), (Member("fc"),), removes=(Member("fc.bias"),)),
)
# A machine on which a nonzero takes a microsecond, and what surrounds the layers seven.
_NAMES = {
    "fc": (6, 8),
    "conv": (6, 2, 2, 2),
    "table": (6, 8),
    "0.weight": (16, 8),
    "2.weight": (12, 16),
    "4.weight": (3, 12),
}
MACHINE = Machine(
    Table(
        *("cpu", "isa", 1, 1, "engine", ""),
        rows=tuple(
            Row(name, "Gemm", shape, ANY, d, 32, d * math.prod(shape), 4.0 * d * math.prod(shape))
            for name, shape in _NAMES.items()
            for d in (1.0, 0.5, 1e-9)
        ),
        rest_us={32: 7.0},
    )
)
BIAS = Site("fc.bias", "bias", (6,), (Member("fc.bias"),))


def check_meter(meter: Meter) -> None:
    """Raise AssertionError when a meter breaks a law; the message names it."""
    name = type(meter).__name__
    assert meter.unit, f"{name}: a unit is needed, in the plural"
    assert meter.lowered_by in LOWERED_BY, f"{name}: lowered_by is {meter.lowered_by!r}; known: {', '.join(LOWERED_BY)}"
    assert 0 <= meter.margin < 1, f"{name}: margin is {meter.margin}; a share of the limit is needed"
    _reads_what_it_writes(meter, name)
    _prices_grow(meter, name)
    _biases(meter, name)
    _says_how_little(meter, name)
    _estimates_are_confirmed(meter, name)


def _reads_what_it_writes(meter: Meter, name: str) -> None:
    for value in LIMITS:
        back = meter.parse(meter.write(value))
        assert math.isclose(back, value, rel_tol=1e-9), (
            f"{name}: {value} is written {meter.write(value)!r}, read {back}"
        )
    for given in NO_LIMITS:
        try:
            read = meter.parse(given)
        except ValueError as e:
            said = str(e)
        else:
            raise AssertionError(f"{name}: {given!r} is read as {read}; no limit")
        assert repr(given) in said, f"{name}: the refusal of {given!r} does not say what came: {said}"
        assert len(said) > len(repr(given)) + 10, (
            f"{name}: the refusal of {given!r} does not say what is needed: {said}"
        )


def _prices_grow(meter: Meter, name: str) -> None:
    shapes = {**_NAMES, "fc.bias": (6,)}
    groups = [s for s in SITES if s.op == "channels"]
    for term in MACHINE.priced(
        [Term(s, catalog.load("constraints", "topk")()) for s in (*SITES, BIAS)], groups, shapes
    ):
        site = term.site
        n = 6 if site.op == "bias" else 48
        costs = [meter.cost(site, Packing(n, k)) for k in range(n + 1)]
        assert all(math.isfinite(c) and c >= 0 for c in costs), f"{name}: a price of {site.op} is below 0 or infinite"
        if meter.on_machine:
            assert (costs[-1] > costs[0]) == (site.op != "bias"), f"{name}: the table's price of {site.op} is not asked"
        falls = [k for k in range(n) if costs[k + 1] < costs[k] * (1 - 1e-9)]
        assert not falls, f"{name}: of {site.op}, {falls[0] + 1} weights of {n} cost less than {falls[0]}"


def _biases(meter: Meter, name: str) -> None:
    """A bias has a price where biases are measured, and only there: else levels are bought that change nothing."""
    bias = torch.ones(6)
    bare = meter.measure(Inventory((), lambda: 100))
    assert math.isfinite(bare), f"{name}: a network without weights costs {bare}"
    with_bias = Inventory((Weight("fc.bias", "bias", 6, 1, None, bias),), lambda: 124)
    counts, priced = meter.measure(with_bias) > bare, meter.cost(BIAS, Packing(6, 6)) > 0
    assert counts == priced, f"{name}: a bias is {'priced' if priced else 'free'} and measured {'too' if counts else 0}"


def _says_how_little(meter: Meter, name: str) -> None:
    said = meter.least(1234)
    assert "1234" in said, f"{name}: least() does not say the value: {said}"


def _estimates_are_confirmed(meter: Meter, name: str) -> None:
    """Levels that halve each layer: what they are expected to save is what a written network saves.

    In place, no channel is removed: what goes along with one is the budget's to find out.
    """
    module, example = nets.mlp(), graph.settle(nets.mlp(), torch.randn(2, 8), None)
    traced = graph.trace(module, example)
    constraint = catalog.load("constraints", LOWERED_BY[meter.lowered_by])()
    terms = tuple(Term(s, constraint) for s in traced.sites if s.op == "linear")
    terms = MACHINE.priced(terms, (), traced.program.shapes)
    weights = {k: p.detach().clone() for k, p in module.named_parameters()}
    levels: dict[str, Level] = {}
    saved = 0.0
    for t in terms:
        shape = views.shape(t.site, constraint.view, weights)
        menu = constraint.levels(shape)
        levels[t.site.name] = menu[len(menu) // 2]
        n = shape[0] * shape[1]
        saved += meter.cost(t.site, Packing(n, n)) - cost(meter, t.site, packed(constraint, shape, levels[t.site.name]))

    def measured(values: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            for k, p in module.named_parameters():
                p.copy_(values[k])
        found = inventory(module, traced, lambda: len(pack(written.exported_bytes(module, example))))
        return meter.measure(replace(found, table=MACHINE.of(found.weights, {}, rest=False)))

    dense, small = measured(weights), measured({**weights, **feasible.project(terms, levels, weights)})
    allowed = WITHIN * small if meter.margin else 1e-9 * dense
    assert small < dense or not meter.on_machine, f"{name}: half of the weights cost as much as all, {dense:g}"
    assert abs(dense - saved - small) <= allowed, (
        f"{name}: a network that costs {dense:g} dense should cost {dense - saved:g} and costs {small:g} {meter.unit}"
    )
