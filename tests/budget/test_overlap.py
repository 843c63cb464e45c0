"""Coupled channels and sets inside them under one budget: no weight is paid for twice."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur import graph
from secateur.budget import kinds, overlap
from secateur.budget.machine import LATENCY, Machine
from secateur.budget.menus import cost, packed
from secateur.budget.purse import Purse
from secateur.constraints.blocks import Blocks
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Constraint, Term
from secateur.engine.latency import ANY, Row, Table
from secateur.graph.tracing import Traced
from secateur.run.aligned import aligned
from secateur.run.net import Net
from secateur.terms import views
from secateur.types import Level, Limit, Packing

WIDE = (1, 3, 16, 16)


def convolutions() -> nn.Module:
    """Three convolutions in a chain."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()


def net_of(inside: Constraint, of: tuple[str, ...] = ("3.weight", "6.weight"), flat: bool = False, **given: Any) -> Net:
    module, example = convolutions(), graph.settle(convolutions(), torch.randn(WIDE), None)
    traced = graph.trace(module, example)
    terms = [Term(s, inside, **given) for s in traced.sites if s.name in of]
    every = (*terms, *(Term(g, Rows()) for g in traced.groups))
    every = aligned(every, traced.program.shapes) if flat else every
    return Net(module, traced, every, **_machine(traced, flat))


def _machine(traced: Traced, flat: bool) -> dict[str, Machine]:
    """A nonzero takes a nanosecond, and each weight that is there another quarter of one. Flat: a weight takes one."""
    rows = tuple(
        Row(s.name, "Conv", s.shape, ANY, d, 32, 1e-3 * (1.0 if flat else d + 0.25) * s.n, 4.0 * d * s.n)
        for s in traced.sites
        if s.op in ("conv", "linear")
        for d in (1.0, 0.5, 0.25, 1e-9)
    )
    table = Table(*("cpu", "isa", 1, 1, "engine", ""), rows=rows, rest_us={32: 0.0})
    return {"machine": Machine(table, kinds=(LATENCY,))}


def total(net: Net, kind: str, levels: dict[str, Level]) -> float:
    found = 0.0
    for t in net.terms:
        shape = views.shape(t.site, t.constraint.view, net.weights)
        found += cost(kinds.meter(kind), t.site, packed(t.constraint, shape, levels[t.site.name]))
    return found


@pytest.mark.parametrize("kind", ["macs", "nnz", LATENCY])
@pytest.mark.parametrize("inside", [TopK(), Blocks(1, 4)], ids=["topk", "blocks"])
def test_with_all_channels_a_net_costs_what_its_layers_cost(inside: Constraint, kind: str) -> None:
    net = net_of(inside)
    meter, weights = kinds.meter(kind), net.weights
    levels: dict[str, Level] = {}
    expected = 0.0
    priced = {t.site.name: t.site for t in net.terms}
    for name, site in {s.name: s for s in net.traced.sites if s.op == "conv"}.items():
        own = net.machine.priced([Term(site, inside)], (), {k: tuple(w.shape) for k, w in weights.items()})[0].site
        n = site.n
        if name in priced:
            shape = views.shape(site, inside.view, weights)
            menu = inside.levels(shape)
            levels[name] = menu[len(menu) // 3]
            expected += cost(meter, own, packed(inside, shape, levels[name]))
        else:
            expected += meter.cost(own, Packing(n, n))
    levels |= {t.site.name: None for t in net.terms if t.site.op == "channels"}
    linear = 1e-6 * 1.25 * 160 if kind == LATENCY else 0.0  # a machine's table tells of the readers too
    assert total(net, kind, levels) == pytest.approx(expected + linear, rel=0.02)


def test_a_channel_costs_what_the_set_inside_cannot_remove() -> None:
    net = net_of(TopK(), of=("0.weight", "3.weight", "6.weight"))
    for t in net.terms:
        if t.site.op == "channels":
            shape = views.shape(t.site, t.constraint.view, net.weights)
            whole = cost(kinds.meter("macs"), t.site, packed(t.constraint, shape, None))
            plain = kinds.meter("macs").cost(t.site, Packing(shape[0] * shape[1], shape[0] * shape[1]))
            assert 0 <= whole <= 0.02 * plain, t.site.name


@pytest.mark.parametrize("kept", [0.25, 1.0], ids=["sparse", "dense"])
def test_prices_of_a_machine_add_up_at_the_levels_of_today(kept: float) -> None:
    """Half of the channels, and in what is left a quarter or all of the weights."""
    net = net_of(TopK())
    shapes = {t.site.name: views.shape(t.site, t.constraint.view, net.weights) for t in net.terms}
    levels: dict[str, Level] = {}
    for t in net.terms:
        rows, cols = shapes[t.site.name]
        levels[t.site.name] = rows // 2 if t.site.op == "channels" else round(kept * rows * cols / 4)
    found = replace(net, terms=net.terms)
    found.terms = overlap.today(net.terms, levels, shapes)
    sizes = {s.name: s.n for s in net.traced.sites if s.op in ("conv", "linear")}
    dense = 1e-6 * 1.25 * (sizes["0.weight"] + sizes["10.weight"]) / 2
    assert total(found, LATENCY, levels) == pytest.approx(
        dense + 1e-6 * (kept + 0.25) * (sizes["3.weight"] + sizes["6.weight"]) / 4, rel=0.01
    )


def test_milliseconds_are_met_by_fewer_channels_where_zeros_take_as_long_as_weights() -> None:
    """Blocks down to a sixteenth save nothing on this machine, channels do: no block is given up."""
    net = net_of(Blocks(1, 4), flat=True)
    whole = sum(1e-6 * s.n for s in net.traced.sites if s.op in ("conv", "linear"))
    levels = Purse(net.terms, (Limit(LATENCY, whole / 6),)).levels(net.weights, {}, 1.0)
    small = net.smaller({**net.weights, **net.supported(levels, net.weights, {})})
    assert 0.75 * whole / 6 <= net.predicted(small, lambda: 0, [LATENCY])[LATENCY] <= whole / 6 * (1 + 1e-9)
    for t in net.terms:
        if t.site.op == "channels":
            assert t.constraint.together == (4 if t.site.name in ("0.weight.channels", "3.weight.channels") else 1)
            kept = levels[t.site.name]
            assert kept is None or kept * t.constraint.together >= 0.1 * t.site.shape[0]
    held = sum(int(w.count_nonzero()) for w in small.parameters() if w.dim() == 4)
    assert held > 0.95 * sum(w.numel() for w in small.parameters() if w.dim() == 4)


@pytest.mark.parametrize("kind", ["macs", "nnz"])
@pytest.mark.parametrize("level", [None, 200], ids=["free", "given"])
def test_the_budget_is_spent_where_channels_and_blocks_are_chosen_together(kind: str, level: Level) -> None:
    """Paid for twice, a kept weight left three quarters of a budget unspent and a layer with three outputs."""
    net = net_of(Blocks(1, 4), given=level is not None, level=level)
    dense = {s.name: s.n * (s.positions if kind == "macs" else 1) for s in net.traced.sites}
    limit = sum(dense[f"{i}.weight"] for i in (0, 3, 6, 10)) / 6
    purse = Purse(net.terms, (Limit(kind, limit),), fixed={kind: float(dense["10.weight"])})
    levels = purse.levels(net.weights, {}, 1.0)
    small = net.smaller({**net.weights, **net.supported(levels, net.weights, {})})
    assert 0.75 * limit <= net.predicted(small, lambda: 0, [kind])[kind] <= limit
    for t in net.terms:
        if t.site.op == "channels":
            assert levels[t.site.name] is None or levels[t.site.name] >= 0.4 * t.site.shape[0]


@pytest.mark.parametrize("inside", [[], [{"where": ["3.weight", "6.weight"], "with": ["blocks", "uniform"]}]])
def test_channels_that_take_their_readers_columns_along_leave_room_and_it_is_spent(inside: list[Any]) -> None:
    """Batch norms go with their channels when the net is measured on the way: what was cut too far does not return."""
    torch.manual_seed(0)
    train = [(torch.randn(16, 3, 16, 16), torch.randint(0, 5, (16,))) for _ in range(6)]
    module = convolutions()
    dense = sum(s.n * s.positions for s in graph.trace(module, graph.settle(module, train[0][0], None)).sites)
    recipe = {
        "constrain": [{"where": "*.channels", "with": "rows"}, *inside],
        "budget": {"macs": dense / 8},
        "solver": {"name": "gradual", "epochs": 5, "every": 2},
        "baselines": [],
        "bench": {"against": [], "seconds": 0.01},
        "training": {"threads": 1},
    }
    result = secateur.compress(module, train, recipe=recipe, on_progress=False)
    (budget,) = result.report["budget"]
    assert budget["met"]
    assert budget["reached"] >= 0.88 * budget["asked"]
