"""Channels in an order in which whole blocks hold more, before the approach: nothing of it is left at run time.

Where a set keeps and drops blocks of neighbouring channels, which channels are neighbours is ours to choose: a group of
coupled channels may stand in any order, in all its producers and readers at once. The energy sum h w^2 of the blocks
kept is raised by swapping two channels at a time, the best swap for each channel in turn.

References: Ji et al., TETRIS, NeurIPS 2018 (reordering for blocks); Pool and Yu, NeurIPS 2021 (swaps, for N:M).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur import graph
from secateur.contracts import Constraint, Term
from secateur.terms import views
from secateur.types import Level, Member, Site

if TYPE_CHECKING:
    from secateur.run.job import Job
    from secateur.run.net import Net
    from secateur.terms.feasible import Importance

STAGE = "permute"
_SWEEPS = 4  # over all channels of a group; a sweep that gains nothing is the last
_GUESS = 0.9  # share of zeros, where the budget will choose the level
_LINES = 1024  # of each matrix that a swap is judged by, evenly spread; whether a sweep gained is judged by all
_LEAST_GAIN = 1e-4  # of a channel's energy: below it a swap is rounding


@dataclass(frozen=True)
class _Set:
    """A set of blocks at its site, at the level that the order is chosen for."""

    site: Site
    constraint: Constraint
    level: Level

    def matrix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return views.matrix(self.site, self.constraint.view, tensors)

    def kept(self, energies: Mapping[str, Tensor]) -> float:
        """Share of the site's energy that its best blocks hold."""
        energy = self.matrix(energies)
        lost = self.constraint.distance(energy.sqrt())(self.level)
        return 1.0 - lost / max(float(energy.sum()), 1e-300)


@dataclass
class _Part:
    """What one matrix says of a group's order: blocks of channels at each line of everything else.

    Attributes:
        values: [places, lines], what the channel at each place adds to its block at each line.
        block: [places], the block that a place lies in.
        sums: [blocks, lines], the energy of each block.
        least: [blocks, lines], the energy from which on a block is kept.
    """

    values: Tensor
    block: Tensor
    sums: Tensor
    least: Tensor

    def gains(self, at: int) -> Tensor:
        """What the kept blocks gain when the channels at place `at` and at each other one change places."""
        here = self.block[at]
        step = self.values - self.values[at]
        gain = _over(self.sums[here] + step, self.least[here]) - _over(self.sums, self.least)[here]
        there, least = self.sums[self.block], self.least[self.block]
        gain += _over(there - step, least) - _over(there, least)
        return gain.masked_fill(self.block == here, 0.0)

    def swap(self, a: int, b: int) -> None:
        step = self.values[b] - self.values[a]
        self.sums[self.block[a]] += step
        self.sums[self.block[b]] -= step
        self.values[[a, b]] = self.values[[b, a]]


def wanted(net: Net) -> bool:
    """Does some set ask for another order?"""
    return bool(_sets(net.terms))


def permuted(job: Job, h: Importance) -> tuple[Net, dict[str, Any]]:
    """The net that a run starts from in the order that its block sets ask for, and the record of it as a stage.

    Args:
        h: importance per site, where a saliency weights the projection.
    """
    net, began = job.start, time.perf_counter()
    sets = _sets(net.terms)
    groups = {g.name: g for g in net.traced.coupling.groups}
    energies = _energies(net, sets, h)
    orders = job.setting.ledger.fact(STAGE, lambda: _orders(groups, sets, energies, job.told(STAGE)))
    module, kept = graph.reorder(net.module, net.traced, orders)
    job.pulse(STAGE, last=True)
    traced = graph.trace(module, job.example_inputs)
    after = energies
    for name in orders.keys() - set(kept):
        after = _moved(after, groups[name], orders[name])
    held = {s.site.name: [s.kept(energies), s.kept(after)] for s in sets}
    total = [sum(float(s.matrix(energies).sum()) * held[s.site.name][i] for s in sets) for i in (0, 1)]
    whole = max(sum(float(s.matrix(energies).sum()) for s in sets), 1e-300)  # all zero: nothing to hold
    stage = {
        "name": STAGE,
        "seconds": time.perf_counter() - began,
        "energy_before": total[0] / whole,
        "energy_after": total[1] / whole,
        "energies": held,
        "order_kept": kept,
    }
    return replace(net, module=module, traced=traced, terms=job.terms_on(module, traced)), stage


def note(stage: Mapping[str, Any]) -> str:
    """What the report says of it."""
    text = (
        f"channels were reordered before the approach: at the levels sought (90 % zeros where the budget chooses) "
        f"whole blocks hold {100 * stage['energy_after']:.1f} % of the weights' energy, "
        f"{100 * stage['energy_before']:.1f} % in the order before"
    )
    kept = stage["order_kept"]
    return text + (f"; the code tells the channels of {', '.join(kept)} apart, which keep their order" if kept else "")


def _sets(terms: Sequence[Term]) -> list[_Set]:
    found = []
    for t in (t for t in terms if t.site.of == "weight"):
        size = views.shape(t.site, t.constraint.view, {})
        for part, level in t.constraint.split(t.level):
            if part.bands(size) is not None:
                at = part.parse_level({"sparsity": _GUESS}, size) if level is None else level
                found.append(_Set(t.site, part, at))
    return found


def _energies(net: Net, sets: Sequence[_Set], h: Importance) -> dict[str, Tensor]:
    """h w^2 of every parameter, float64 in its own shape."""
    out = {k: w.double().square() for k, w in net.weights.items()}
    views_of = {t.site.name: t.constraint.view for t in net.terms}
    for s in sets:
        weight = h.get(s.site.name)
        if weight is not None:
            view = views_of[s.site.name]
            out |= views.write(s.site, view, out, views.matrix(s.site, view, out) * weight.double())
    return out


def _orders(
    groups: Mapping[str, Site], sets: Sequence[_Set], energies: Mapping[str, Tensor], told: Callable[[], None]
) -> dict[str, list[int]]:
    """The order of every group that some set of blocks feels; group after group, each on the orders before it."""
    orders = {}
    for group in groups.values():
        touched = {m.param for m in (*group.members, *group.removes)}
        felt = [s for s in sets if s.site.members[0].param in touched]
        if not _parts(group, felt, energies):
            continue
        plain = list(range(group.shape[0]))
        found = max(
            (_improved(group, felt, energies, start, told) for start in (plain, _by_energy(group, felt, energies))),
            key=lambda order: _kept(felt, _moved(energies, group, order)),
        )
        if found != plain:
            orders[group.name] = found
            energies = _moved(energies, group, found)
    return orders


def _improved(
    group: Site, felt: Sequence[_Set], energies: Mapping[str, Tensor], order: list[int], told: Callable[[], None]
) -> list[int]:
    """An order of which no swap of two channels gains, from `order`; thresholds follow from sweep to sweep."""
    best = _kept(felt, _moved(energies, group, order))
    for _ in range(_SWEEPS):
        told()
        better = [order[i] for i in _swept(_parts(group, felt, _moved(energies, group, order)))]
        kept = _kept(felt, _moved(energies, group, better))
        if kept <= best:
            break
        order, best = better, kept
    return order


def _swept(parts: Sequence[_Part]) -> list[int]:
    """One sweep: each channel in turn changes places with the one with which the blocks gain most."""
    order = list(range(len(parts[0].block)))
    for at in range(len(order)):
        gains = torch.stack([p.gains(at) for p in parts]).sum(dim=0)
        other = int(gains.argmax())
        if float(gains[other]) > _LEAST_GAIN * float(parts[0].values[at].abs().sum()):
            for p in parts:
                p.swap(at, other)
            order[at], order[other] = order[other], order[at]
    return order


def _by_energy(group: Site, felt: Sequence[_Set], energies: Mapping[str, Tensor]) -> list[int]:
    """Strong channels beside strong ones: where a swap at a time would have far to go."""
    total = torch.stack([p.values.sum(dim=1) for p in _parts(group, felt, energies)]).sum(dim=0)
    return [int(i) for i in total.argsort(descending=True, stable=True)]


def _kept(felt: Sequence[_Set], energies: Mapping[str, Tensor]) -> float:
    return sum(s.kept(energies) * float(s.matrix(energies).sum()) for s in felt)


def _moved(energies: Mapping[str, Tensor], group: Site, order: Sequence[int]) -> dict[str, Tensor]:
    out = dict(energies)
    for m in (*group.members, *group.removes):
        if m.param in out:
            at = torch.tensor(graph.placed(m, order, out[m.param].shape[m.axis]))
            out[m.param] = out[m.param].index_select(m.axis, at)
    return out


def _parts(group: Site, felt: Sequence[_Set], energies: Mapping[str, Tensor]) -> list[_Part]:
    """What the sets on each of the group's tensors say of the order of its channels."""
    found = []
    for m in (*group.members, *group.removes):
        for s in felt:
            if s.site.members[0].param == m.param and (part := _part(m, s, energies)) is not None:
                found.append(part)
    return found


def _part(m: Member, s: _Set, energies: Mapping[str, Tensor]) -> _Part | None:
    """None where no block holds two channels, or a channel is several lines of its axis already."""
    energy = s.matrix(energies)
    bands = s.constraint.bands((energy.shape[0], energy.shape[1]))
    assert bands is not None
    assert isinstance(s.level, int)
    sums = energy.new_zeros(int(bands.rows.max()) + 1, energy.shape[1]).index_add_(0, bands.rows, energy)
    sums = sums.new_zeros(sums.shape[0], int(bands.cols.max()) + 1).index_add_(1, bands.cols, sums)
    least = _least(sums, s.level, bands.each_row).expand_as(sums)
    shape, along_rows = energies[m.param].shape, True
    places = torch.arange(shape[m.axis]).view([-1 if a == m.axis else 1 for a in range(len(shape))])
    owner = s.matrix({m.param: places.expand(shape)})  # of every weight: where it is on the member's axis
    if not bool((owner == owner[:, :1]).all()):
        energy, owner, sums, least, along_rows = energy.T, owner.T, sums.T, least.T, False
    if m.repeat > 1 or not bool((owner == owner[:, :1]).all()):
        return None
    mine, other = (bands.rows, bands.cols) if along_rows else (bands.cols, bands.rows)
    index = list(range(shape[m.axis]) if m.index is None else m.index)
    taps = owner[:, 0].argsort(stable=True).view(shape[m.axis], -1)[index]  # [channels, lines of one channel]
    block = mine[taps[:, 0]].unique(return_inverse=True)[1]
    alike = all(torch.equal(block, mine[column].unique(return_inverse=True)[1]) for column in taps.T)
    if not alike or int(block.bincount().max()) < 2:
        return None
    lines = energy.new_zeros(energy.shape[0], sums.shape[1]).index_add_(1, other, energy)
    first = torch.stack([mine[taps[block == b][0]] for b in range(int(block.max()) + 1)])
    some = slice(None, None, -(-taps.shape[1] * lines.shape[1] // _LINES))
    pick = [lines[taps], sums[first], least[first]]
    values, sums, least = (x.flatten(1)[:, some].float().contiguous() for x in pick)
    return _Part(values, block, sums, least)


def _least(sums: Tensor, level: int, each_row: bool) -> Tensor:
    """Between the last block that is kept and the first that is not."""
    ranked = (sums if each_row else sums.reshape(1, -1)).sort(dim=1, descending=True).values
    if level == 0:
        return ranked[:, :1] * 0 + torch.inf
    last = ranked[:, level - 1 : level]
    return (last + ranked[:, level : level + 1]) / 2 if level < ranked.shape[1] else last * 0


def _over(sums: Tensor, least: Tensor) -> Tensor:
    return (sums - least).clamp(min=0.0).sum(dim=-1)
