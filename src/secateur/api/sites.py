"""`secateur sites`: what a recipe can name in a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateur import catalog, graph
from secateur.contracts import ActivationSet
from secateur.errors import ConstraintError
from secateur.graph.counts import held, left_out
from secateur.graph.unwrapping import plain
from secateur.recipe.naming import SMALL, pool_of, view_shape
from secateur.shell.showing import Shown, table
from secateur.types import Site

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from secateur.graph import Traced


def sites(model: nn.Module, example_inputs: Any) -> Shown:
    """What a recipe can name in a network, and what stays out of reach with the reason.

    Args:
        model: any module that `torch.export` can trace; not changed.
        example_inputs: a tensor, a tuple (positional inputs) or a dict (keyword inputs), with a leading batch axis.
    Returns:
        `{"sites", "channels", "held", "left_out"}`; prints as tables. A site: name, op, shape, n weights, nbytes as
        they are, positions (multiplications with each weight per example), macs, and `sets`: the constraints that may
        act there.
        `channels`: what `rows`, `heads` or `units` removes together: name, number, what (channels, heads, units), the
        weights that make them, `readers` (the weights of the layers that read them), what loses a part with them.
        `held`: the channels that cannot be removed, and why.
    Raises:
        UsageError, UnsupportedError: the model does not run on the inputs, or cannot be traced.
    """

    dense = plain(model)[0].eval()
    traced = graph.trace(dense, example_inputs)
    return listed(traced, {k: p.element_size() for k, p in dense.named_parameters()})


def listed(traced: Traced, width: Mapping[str, int]) -> Shown:
    """The list of a traced network; `width`: bytes of one weight, by parameter."""

    free, groups = traced.free
    pools: dict[str, Sequence[Site]] = {}
    rows = []
    for site in sorted(free, key=lambda s: s.op in SMALL):
        rows.append(
            {
                "name": site.name,
                "op": site.op,
                "shape": list(site.shape),
                "n": site.n,
                "nbytes": site.n * width.get(site.name, 4),
                "positions": site.positions,
                "macs": traced.macs.get(site.name, 0),
                "sets": _sets(site, lambda view: _pool(view, free, groups, pools)),
            }
        )
    channels = [
        {
            "name": g.name,
            "n": g.shape[0],
            "what": f"{g.family or 'channel'}s",
            "weights": list(dict.fromkeys(m.param for m in g.members)),
            "readers": list(g.readers),
            "with_them": list(dict.fromkeys(m.param for m in g.removes)),
        }
        for g in groups
    ]
    spare = [row | {"nbytes": row["n"] * width.get(row["name"], 4)} for row in left_out(traced)]
    return Shown({"sites": rows, "channels": channels, "held": held(traced), "left_out": spare}, _show)


def _pool(view: str, free: Sequence[Site], groups: Sequence[Site], known: dict[str, Sequence[Site]]) -> Sequence[Site]:
    """`pool_of`, once for each view."""
    if view not in known:
        known[view] = pool_of(view, free, groups)
    return known[view]


def _sets(site: Site, pool: Callable[[str], Sequence[Site]]) -> list[str]:
    """The constraints, with their default options, that may act on a weight or on the channels that it makes."""
    found = []
    for name in catalog.names("constraints"):
        try:
            constraint = catalog.load("constraints", name)()
            if isinstance(constraint, ActivationSet):
                continue  # acts on what the layer reads
            acts = any(m.param == site.name for s in pool(constraint.view) for m in s.members) and not constraint.unfit(
                site
            )
            if acts and len(constraint.levels(view_shape(site))):
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
        rows = [
            [
                c["n"],
                c["what"],
                _and(c["weights"]),
                _and(c["readers"]),
                _and([n for n in c["with_them"] if n not in c["readers"]]),
            ]
            for c in found["channels"]
        ]
        names = ["", "of them", "made by", "read by", "moved by"]
        console.print(table("what goes together (rows; heads; units)", names, rows))
    if found["held"]:
        rows = [[x["name"], f"{x['n']} of {x['of']}", x["why"]] for x in found["held"]]
        console.print(table("channels that cannot be removed", ["made by", "channels", "why"], rows))
    if found["left_out"]:
        rows = [[x["name"], _by(x["shape"]), x["nbytes"], f"{x['share']:.1%}", x["why"]] for x in found["left_out"]]
        console.print(table("left as they are", ["name", "shape", "bytes", "share", "why"], rows))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _and(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"
