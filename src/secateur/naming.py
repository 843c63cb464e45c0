"""What can be named in a recipe: patterns against sites, and the list of them (`secateur sites`).

A pattern means the same layer under every set: `fc1` and `fc1.weight` are the weight where weights are constrained, and
the channels that it makes where channels are (`rows`), together with all that must go with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from secateur import catalog, views
from secateur.errors import ConstraintError, UsageError
from secateur.limits import QUOTED, quoted
from secateur.showing import Shown, table
from secateur.types import Site

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from secateur.graph import Traced

Patterns = str | Sequence[str]
_LIST = "`secateur sites MODEL` (in Python secateur.sites(model, inputs)) lists what can be named"
_SMALL = ("bias", "norm")  # named in full only
_IN_PLACE = ("recurrent", "embedding", "conv_transpose", "matmul")


def names_of(site: Site) -> tuple[str, ...]:
    """The names of a site that a pattern may match: of the parameter, and of its layer unless it is a bias or a norm.

    Channels answer to the names of all weights that make them, and to their own.
    """
    if site.op in _SMALL:
        return (site.name,)
    own = [site.name] if site.op != "channels" else [site.name, *(m.param for m in site.members)]
    return tuple(dict.fromkeys([*own, *(name.rpartition(".")[0] for name in own)]))


def match(
    where: Patterns, exclude: Patterns | None, pool: Sequence[Site], every: Sequence[Site], subject: str
) -> list[Site]:
    """The sites of `pool` that `where` names and `exclude` does not.

    A bare star leaves out biases and norms.

    Args:
        pool: those that the set can act on, weights or channels.
        every: all weights and channels, so that messages can tell a wrong name from a wrong place.
    Raises:
        UsageError: a pattern names nothing, or nothing in `pool`, or nothing is left.
    """
    patterns = [where] if isinstance(where, str) else list(where)
    out = [exclude] if isinstance(exclude, str) else list(exclude or [])
    for pattern in patterns:
        if not any(_fits(s, pattern) for s in pool):
            raise UsageError(f"{subject}: {_why_nothing(pattern, pool, every)}")
    for pattern in out:
        if not any(_fits(s, pattern) for s in every):
            raise UsageError(f"{subject}: {_why_nothing(pattern, pool, every)}")
    hit = []
    for site in pool:
        named = any(_fits(site, p) and (p != "*" or site.op not in _SMALL) for p in patterns)
        if named and not any(_fits(site, p) for p in out):
            hit.append(site)
    if not hit:
        raise UsageError(f"{subject}: where {quoted(where)} minus exclude {quoted(exclude)} leaves no layer; {_LIST}")
    return hit


def pool_of(view: str, sites: Sequence[Site], groups: Sequence[Site]) -> list[Site]:
    """What a set with that view can act on: weights; or coupled channels, and the weights whose rows no group holds.

    Those are gates of recurrent cells, words of an embedding, parameters of the code: their rows become zero in place.
    """
    if view != "channels":
        return list(sites)
    return [*groups, *(s for s in sites if s.op in _IN_PLACE and not s.last)]


def view_shape(site: Site) -> tuple[int, int]:
    """Rows and columns of the matrix that a set's menu is asked for."""
    if site.op == "channels" or len(site.shape) < 2:
        return (site.shape[0], 1) if site.op == "channels" else (1, site.n)
    return views.shape(site, "oc", {})


def _fits(site: Site, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names_of(site))


def _why_nothing(pattern: str, pool: Sequence[Site], every: Sequence[Site]) -> str:
    elsewhere = [s for s in every if _fits(s, pattern)]
    if not elsewhere:
        known = [s.name for s in sorted(pool, key=lambda s: s.op in _SMALL)]  # weights first
        listed = f"{', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
        return f"pattern {quoted(pattern)} matches no layer{_nearest(pattern, pool)}; the model has {listed}; {_LIST}"
    site = elsewhere[0]
    if site.op == "channels":
        weight = site.members[0].param
        return f"pattern {quoted(pattern)} names removable channels, and this set acts on weights: name {weight}"
    why = "it makes an output of the model" if site.last else "they are tied to what cannot be cut"
    if site.op in _SMALL:
        why = f"it is a {site.op}"
    return f"pattern {quoted(pattern)} names {site.name}, which has no channels that may be removed: {why}; {_LIST}"


def _nearest(pattern: str, pool: Iterable[Site]) -> str:
    names = sorted({name for site in pool for name in names_of(site) if name})
    near = get_close_matches(pattern[:QUOTED], names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(quoted, near))}?" if near else ""


# ---- the list ----------------------------------------------------------------------------------------------------
def sites(model: nn.Module, example_inputs: Any) -> Shown:
    """What a recipe can name in a network, and what stays out of reach with the reason.

    Args:
        model: any module that `torch.export` can trace; not changed.
        example_inputs: a tensor, a tuple (positional inputs) or a dict (keyword inputs), with a leading batch axis.
    Returns:
        `{"sites", "channels", "left_out"}`; prints as tables. A site: name, op, shape, n weights, nbytes as they are,
        positions (multiplications with each weight per example), macs, and `sets`: the constraints that may act there.
        `channels`: what `rows` removes together: name, number, the weights that make them, what goes with them.
    Raises:
        UsageError, UnsupportedError: the model does not run on the inputs, or cannot be traced.
    """
    from secateur import graph
    from secateur.unwrapping import plain

    dense = plain(model)[0].eval()
    traced = graph.trace(dense, example_inputs)
    return listed(traced, {k: p.element_size() for k, p in dense.named_parameters()})


def listed(traced: Traced, width: Mapping[str, int]) -> Shown:
    """The list of a traced network; `width`: bytes of one weight, by parameter."""
    from secateur.job import left_out

    free, groups = traced.free
    rows = []
    for site in sorted(free, key=lambda s: s.op in _SMALL):
        rows.append(
            {
                "name": site.name,
                "op": site.op,
                "shape": list(site.shape),
                "n": site.n,
                "nbytes": site.n * width.get(site.name, 4),
                "positions": site.positions,
                "macs": traced.macs.get(site.name, 0),
                "sets": _sets(site, groups),
            }
        )
    channels = [
        {
            "name": g.name,
            "n": g.shape[0],
            "weights": list(dict.fromkeys(m.param for m in g.members)),
            "with_them": list(dict.fromkeys(m.param for m in g.removes)),
        }
        for g in groups
    ]
    spare = [row | {"nbytes": row["n"] * width.get(row["name"], 4)} for row in left_out(traced)]
    return Shown({"sites": rows, "channels": channels, "left_out": spare}, _show)


def _sets(site: Site, groups: Sequence[Site]) -> list[str]:
    """The constraints, with their default options, that may act on a weight or on the channels that it makes."""
    found = []
    for name in catalog.names("constraints"):
        try:
            constraint = catalog.load("constraints", name)()
            pool = pool_of(constraint.view, [site], groups)
            if any(m.param == site.name for s in pool for m in s.members):
                constraint.levels(view_shape(site))
                found.append(name)
        except (ConstraintError, TypeError, ValueError):  # needs parts, as a joint set; or does not fit this shape
            continue
    return found


def _show(found: Mapping[str, Any], console: Console) -> None:
    console.print(
        table(
            "what a recipe can name",
            ["name", "op", "shape", "weights", "bytes", "positions", "MACs", "sets that may act"],
            [
                [s["name"], s["op"], _by(s["shape"]), s["n"], s["nbytes"], s["positions"], s["macs"], _and(s["sets"])]
                for s in found["sites"]
            ],
            'where: a name, its layer\'s name or a pattern; "*" leaves out biases and norms',
        )
    )
    if found["channels"]:
        rows = [[c["n"], _and(c["weights"]), _and(c["with_them"])] for c in found["channels"]]
        console.print(table("channels that go together (rows)", ["channels", "made by", "read or moved by"], rows))
    if found["left_out"]:
        rows = [[x["name"], _by(x["shape"]), x["nbytes"], f"{x['share']:.1%}", x["why"]] for x in found["left_out"]]
        console.print(table("left as they are", ["name", "shape", "bytes", "share", "why"], rows))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _and(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"
