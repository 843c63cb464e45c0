"""Channels that go in runs where what is inside them survives no other cut: 1x4 blocks read them in fours.

A set of blocks over neighbouring channels holds on what is left only if whole blocks go, so a channel that dies alone
stays in every tensor (`terms/cutting.py`): its place is no faster, and a budget that counted on it cuts ever more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from secateur.contracts import Term
from secateur.terms import cutting
from secateur.types import Member, Site

_RUNS = (1, 2, 4, 8, 16, 32)

Shapes = Mapping[str, Sequence[int]]  # of the parameters


def aligned(terms: tuple[Term, ...], shapes: Shapes) -> tuple[Term, ...]:
    """The terms; sets of whole channels that the budget chooses from take the shortest runs that can be removed."""
    found = []
    for t in terms:
        if t.site.op == "channels" and not t.given:
            runs = (n for n in _RUNS if 2 * n <= t.site.shape[0])
            fits = (n for n in runs if not cutting.pinned(terms, shapes, {"edits": _without_second(t.site, n, shapes)}))
            t = replace(t, constraint=t.constraint.in_runs(next(fits, 1)))
        found.append(t)
    return tuple(found)


def _without_second(site: Site, n: int, shapes: Shapes) -> list[dict[str, object]]:
    """The removal of channels n .. 2n - 1, as `graph.shrink` records it."""
    edits = []
    for m in (*site.members, *site.removes):
        if m.param in shapes:
            size = shapes[m.param][m.axis]
            places = _places(m, size)
            each = len(places) // site.shape[0]
            gone = {*places[n * each : 2 * n * each]}
            keep = [i for i in range(size) if i not in gone]
            edits.append({"tensor": m.param, "axis": m.axis, "size": size, "keep": keep})
    return edits


def _places(m: Member, size: int) -> Sequence[int]:
    return range(size) if m.index is None else m.index
