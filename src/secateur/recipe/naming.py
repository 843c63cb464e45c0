"""What can be named in a recipe: patterns against sites.

A pattern means the same layer under every set: `fc1` and `fc1.weight` are the weight where weights are constrained, the
channels that it makes where channels are (`rows`), and those that it reads where inputs are (`inputs`), together with
all that must go with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from secateur.errors import UsageError
from secateur.limits import QUOTED, quoted
from secateur.terms import views
from secateur.types import Site

if TYPE_CHECKING:
    pass

Patterns = str | Sequence[str]
_LIST = "`secateur sites MODEL` (in Python secateur.sites(model, inputs)) lists what can be named"
_INSTEAD = "rows removes whole channels, and where that cannot be topk takes single weights"
READERS = ("conv", "linear")  # layers whose inputs may lie on a grid
SMALL = ("bias", "norm")  # named in full only
FAMILIES = {"head": "attention heads", "unit": "hidden units"}  # views of channels of a kind of their own
_IN_PLACE = ("recurrent", "embedding", "conv_transpose", "matmul")


def names_of(site: Site) -> tuple[str, ...]:
    """The names of a site that a pattern may match: of the parameter, and of its layer unless it is a bias or a norm.

    Channels answer to the names of all weights that make them, and to their own.
    """
    if site.op in SMALL:
        return (site.name,)
    own = [site.name] if site.op != "channels" else [site.name, *(m.param for m in site.members)]
    return tuple(dict.fromkeys([*own, *(name.rpartition(".")[0] for name in own)]))


def match(
    where: Patterns,
    exclude: Patterns | None,
    pool: Sequence[Site],
    every: Sequence[Site],
    subject: str,
    view: str = "channels",
) -> list[Site]:
    """The sites of `pool` that `where` names and `exclude` does not.

    A bare star leaves out biases and norms.

    Args:
        pool: those that the set can act on, weights or channels.
        every: all weights and channels, so that messages can tell a wrong name from a wrong place.
        view: of the set, for what messages call the parts of a pool.
    Raises:
        UsageError: a pattern names nothing, or nothing in `pool`, or nothing is left.
    """
    patterns = [where] if isinstance(where, str) else list(where)
    out = [exclude] if isinstance(exclude, str) else list(exclude or [])
    if not pool and view in FAMILIES:
        raise UsageError(f"{subject}: the model has no {FAMILIES[view]} that could be removed; {_INSTEAD}")
    for pattern in patterns:
        if not any(_fits(s, pattern) for s in pool):
            raise UsageError(f"{subject}: {_why_nothing(pattern, pool, every, view)}")
    for pattern in out:
        if not any(_fits(s, pattern) for s in every):
            raise UsageError(f"{subject}: {_why_nothing(pattern, pool, every, view)}")
    hit = []
    for site in pool:
        named = any(_fits(site, p) and (p != "*" or site.op not in SMALL) for p in patterns)
        if named and not any(_fits(site, p) for p in out):
            hit.append(site)
    if not hit:
        raise UsageError(f"{subject}: where {quoted(where)} minus exclude {quoted(exclude)} leaves no layer; {_LIST}")
    return hit


def pool_of(view: str, sites: Sequence[Site], groups: Sequence[Site]) -> list[Site]:
    """What a set with that view can act on: weights; or coupled channels, and the weights whose rows no group holds.

    Activations are named by the layers that read them. Rows that no group holds are gates of recurrent cells, words of
    an embedding, parameters of the code: they become zero in place.
    """
    if view == "activation":
        return [s for s in sites if s.op in READERS]
    if view == "head":
        return [g for g in groups if g.family == view]
    if view == "unit":
        return [g for g in groups if g.family == view or _feeds_forward(g, sites)]
    groups = [g for g in groups if not g.family]
    if view == "readers":
        coupled = read_together(groups, sites)
        held = {m.param for site in coupled for m in site.members}
        return [*coupled, *(s for s in sites if s.op not in (*SMALL, "embedding") and s.name not in held)]
    if view != "channels":
        return list(sites)
    grouped = {m.param for group in groups for m in group.members}
    return [*groups, *(s for s in sites if s.op in _IN_PLACE and not s.last and s.name not in grouped)]


def read_together(groups: Sequence[Site], sites: Sequence[Site]) -> list[Site]:
    """The coupled channels as their readers see them: the members are the input axes of the layers that read them.

    Channels that no layer reads by an input axis of its own are left out. As busy as the readers on average.

    Args:
        sites: the net's weights.
    """
    known = {s.name: s for s in sites}
    found: list[Site] = []
    for group in groups:
        reads = tuple(m for m in group.removes if m.param in group.readers)
        if not reads:
            continue
        name = f"{reads[0].param}.inputs"
        n = sum(1 for site in found if site.members[0].param == reads[0].param)
        rest = tuple(m for m in (*group.members, *group.removes) if m not in reads)
        own = [known[m.param] for m in reads if m.param in known]
        busy = round(sum(s.n * s.positions for s in own) / max(sum(s.n for s in own), 1)) or 1
        name = name if not n else f"{name}.{n}"
        found.append(replace(group, name=name, members=reads, removes=rest, positions=busy))
    return found


def _feeds_forward(group: Site, sites: Sequence[Site]) -> bool:
    """Are these the channels between linear layers, one or more that make them and one or more that read them?"""
    ops = {s.name: s.op for s in sites}
    made, read = {ops.get(m.param) for m in group.members}, {ops.get(r) for r in group.readers}
    beside = {ops.get(m.param, "norm") for m in group.removes} - {"bias", "linear"}
    return not group.family and made == read == {"linear"} and not beside


def view_shape(site: Site) -> tuple[int, int]:
    """Rows and columns of the matrix that a set's menu is asked for."""
    if site.op == "channels" or len(site.shape) < 2:
        return (site.shape[0], 1) if site.op == "channels" else (1, site.n)
    return views.shape(site, "oc", {})


def _fits(site: Site, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names_of(site))


def _why_nothing(pattern: str, pool: Sequence[Site], every: Sequence[Site], view: str) -> str:
    elsewhere = [s for s in every if _fits(s, pattern)]
    if not elsewhere:
        known = [s.name for s in sorted(pool, key=lambda s: s.op in SMALL)]  # weights first
        listed = f"{', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
        return f"pattern {quoted(pattern)} matches no layer{_nearest(pattern, pool)}; the model has {listed}; {_LIST}"
    site = elsewhere[0]
    if view in FAMILIES:
        there = ", ".join(s.members[0].param for s in pool[:6])
        what = f"which makes no {FAMILIES[view]}; they are at {there}"
        return f"pattern {quoted(pattern)} names {site.name}, {what}; {_INSTEAD}"
    if site.op == "channels":
        weight = site.members[0].param
        return f"pattern {quoted(pattern)} names removable channels, and this set acts on weights: name {weight}"
    if pool and all(s.op in READERS for s in pool):
        return f"pattern {quoted(pattern)} names {site.name}, a {site.op}; needed: a convolution or a linear layer"
    why = "it makes an output of the model" if site.last else "they are tied to what cannot be cut"
    if site.op in SMALL:
        why = f"it is a {site.op}"
    return f"pattern {quoted(pattern)} names {site.name}, which has no channels that may be removed: {why}; {_LIST}"


def _nearest(pattern: str, pool: Iterable[Site]) -> str:
    names = sorted({name for site in pool for name in names_of(site) if name})
    near = get_close_matches(pattern[:QUOTED], names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(quoted, near))}?" if near else ""
