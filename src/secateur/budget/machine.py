"""What a machine's table says of a net: prices of its sites at any level, and the sum for a net as it would be written.

Kinds on a machine (`Meter.on_machine`) read both: `Site.prices` and `Inventory.table`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from secateur.budget.menus import packed
from secateur.contracts import Term
from secateur.engine.latency import ANY, CHANNELS, Layer, Table
from secateur.types import Packing, Price, Site, Weight

LATENCY, PEAK = "latency_ms", "peak_ram"


@dataclass(frozen=True)
class LayerPrice:
    """Milliseconds, or bytes of memory, of one layer at a packing of its weight.

    Attributes:
        kind: latency_ms or peak_ram.
        integers: it reads and holds integers, where its values have 8 bits or less.
        ratio: measured by predicted.
        share: of the weight, what channels leave of it today; the zeros of a packing lie in the rest first.
    """

    layer: Layer
    integers: bool = False
    ratio: float = 1.0
    kind: str = LATENCY
    share: float = 1.0

    def __call__(self, packing: Packing) -> float:
        share, density, pattern = packing.n / self.layer.n, packing.nnz / max(packing.n, 1), packing.pattern
        if pattern == CHANNELS:  # whole outputs: the engine removes them
            share, density, pattern = share * density, 1.0, ANY
        share, density = share * self.share, min(density / self.share, 1.0)
        bits = 8 if self.integers and packing.bits <= 8 else 32
        if self.kind == PEAK:
            return self.layer.cost("nbytes", share, density, pattern, bits)
        return 1e-3 * self.ratio * self.layer.cost("us", share, density, pattern, bits)


@dataclass(frozen=True)
class GroupPart:
    """What one layer along coupled channels takes of their price.

    Attributes:
        price: of the layer; `held`: what is stored of it at full width.
        own, axes: how many of its axes are this group's, and how many are any group's.
        others: the share of it that the other groups leave today; None: as much as this one.
    """

    price: LayerPrice
    held: tuple[Packing, ...]
    own: int
    axes: int
    others: float | None = None
    today: float = 0.0  # what it takes today

    def __call__(self, kept: float) -> float:
        """At that share of this group; where it meets others the sum of all is right at today's shares."""
        part = self.own / self.axes
        if self.others is None:
            return part * self.at(kept**self.axes)
        return self.at(kept**self.own * self.others) - (1 - part) * self.today

    def at(self, share: float) -> float:
        """The layer at a share of its weights, as dense in them as it is held."""
        total = 0.0
        for p in self.held:
            n = round(p.n * share)
            total += self.price(replace(p, n=n, nnz=round(n * p.nnz / max(p.n, 1))))
        return total


@dataclass(frozen=True)
class GroupPrice:
    """What the layers along coupled channels take, each shared with the other groups that it meets."""

    parts: Mapping[str, GroupPart]

    def __call__(self, packing: Packing) -> float:
        kept = packing.nnz / max(packing.n, 1)
        return sum(part(kept) for part in self.parts.values())


@dataclass(frozen=True)
class Machine:
    """A table and what a run has learned of it.

    Attributes:
        integers: weights of layers whose activations are quantized.
        given: the table is a file that the user named, maybe another machine's: nothing is timed here.
        ratio: measured by predicted of the last net that was timed.
        kinds: that are asked about.
    """

    table: Table
    integers: frozenset[str] = frozenset()
    given: bool = False
    ratio: float = 1.0
    kinds: tuple[str, ...] = (LATENCY,)

    def priced(
        self, terms: Sequence[Term], groups: Sequence[Site], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[Term, ...]:
        """The terms, their sites with prices.

        Args:
            groups: all coupled channels of the net, where any of the terms acts on some.
            shapes: of the net's parameters.
        """
        axes = Counter(m.param for g in groups for m in (*g.members, *g.removes))
        return tuple(replace(t, site=replace(t.site, prices=self._prices(t.site, axes, shapes))) for t in terms)

    def _prices(self, site: Site, axes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Price]:
        if site.op != "channels":
            price = self._layer(site.members[0].param) if site.members else None
            return {} if price is None else {kind: replace(price, kind=kind) for kind in (LATENCY, PEAK)}
        parts = {}
        for param, own in Counter(m.param for m in (*site.members, *site.removes)).items():
            if price := self._layer(param):
                n = math.prod(shapes[param])
                parts[param] = GroupPart(price, (Packing(n, n),), own, max(axes[param], own))
        return {
            kind: GroupPrice({k: replace(p, price=replace(p.price, kind=kind)) for k, p in parts.items()})
            for kind in (LATENCY, PEAK)
        }

    def _layer(self, param: str) -> LayerPrice | None:
        layer = self.table.layers.get(param)
        return None if layer is None else LayerPrice(layer, param in self.integers, self.ratio)

    def of(
        self, weights: Iterable[Weight], patterns: Mapping[str, str], rest: bool = True
    ) -> dict[str, Callable[[], float]]:
        """What the table says of a net with these weights, as `Inventory.table` holds it.

        Memory is told of parts alone: that of a whole net is in the engine's plan of its file.

        Args:
            patterns: by weight, where its zeros lie; `any` where nothing is said.
            rest: with what surrounds the layers; without it of a part of a net.
        """
        kept = tuple(weights)

        def total(kind: str) -> float:
            found = 1e-3 * self.ratio * self.table.rest(8 if self.integers else 32) if rest else 0.0
            for w in kept:
                if price := self._layer(w.of or w.name):
                    price = replace(price, kind=kind)
                    bits = 8.0 if price.integers else 32.0
                    pattern = patterns.get(w.of or w.name, ANY)
                    # What is whole outputs was removed.
                    pattern = ANY if pattern == CHANNELS else pattern
                    found += price(Packing(w.value.numel(), w.nnz, bits, pattern=pattern))
            return found

        told = (LATENCY,) if rest else (LATENCY, PEAK)
        return {kind: partial(total, kind) for kind in told}


def pattern_of(term: Term, shape: tuple[int, int]) -> str:
    """Where zeros may lie by the term's set, as `Packing.pattern` says it."""
    menu = term.constraint.levels(shape)
    return packed(term.constraint, shape, menu[len(menu) // 2])[0].pattern
