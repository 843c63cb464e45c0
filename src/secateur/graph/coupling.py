"""Which channels must go together: labels run through the program, rows of parameters that share one are a group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.graph.flow import loose_params
from secateur.graph.ops import rule
from secateur.graph.ops._operator import Labels, Size, different, shaped
from secateur.graph.program import Call, Program
from secateur.types import Held, Member, Site

Axis = tuple[str, int]  # a parameter or buffer, an axis of it
OUTPUT = "the model answers with them"
_LARGE = 1 << 18  # elements of a parameter that are followed one by one

HEADS, UNITS = "head", "unit"


@dataclass(frozen=True)
class Coupling:
    """The labels of one program.

    Attributes:
        elements: node -> int64 class of every activation element (0 none, 1 not removable).
        axes: (parameter or buffer, axis) -> int64 class of every index.
        pads: (padding module, side) -> class of every padded channel on that side.
        sizes: (module, attribute) -> class of everything that this number counts.
        suspects: call -> classes whose removal its literal sizes may forbid.
        groups: the `channels` sites.
        held: the channels of weights that cannot be removed, with the reason.
    """

    elements: dict[Call, Any]
    axes: dict[Axis, np.ndarray[Any, Any]]
    pads: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    sizes: dict[Size, np.ndarray[Any, Any]] = field(default_factory=dict)
    suspects: dict[str, set[int]] = field(default_factory=dict)
    groups: tuple[Site, ...] = ()
    held: tuple[Held, ...] = ()
    _seen: dict[Call, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def classes(self) -> frozenset[int]:
        """Of the channels that some axis has and that may be removed."""
        return frozenset(c for axis in self.axes.values() for c in axis.tolist() if c > Labels.PIN)

    def seen(self, node: Call) -> Tensor:
        """The different classes of a call's elements."""
        if node not in self._seen:
            self._seen[node] = different(self.elements[node])
        return self._seen[node]


def couple(program: Program) -> Coupling:
    """Run labels through the program and gather the groups."""
    labels = Labels()
    env: dict[Call, Any] = {}
    loose, read = loose_params(program), set()

    def see(a: Call) -> Any:
        read.add(a)
        return env[a]

    inputs = labels.fixed("they meet the model's input")
    quiet = {*program.buffers, *program.static}  # constants, and what is made of them alone
    for n in program.nodes:
        if n.op in ("placeholder", "get_attr"):
            env[n] = _given(n, inputs, loose, labels, program)
        elif n.op == "call_function":
            env[n] = _label(n, see, quiet, labels, program)
        else:
            for a in n.all_input_nodes:
                for part in torch.utils._pytree.tree_leaves(env[a]):
                    if isinstance(part, Tensor):
                        labels.pin(part, OUTPUT)
    for n in program.calls:
        if not _getitem(n):
            rule(n, program).settle(n, env[n], labels)
    makers = _makers(labels, program)
    for n in program.nodes:
        if n in read and program.params.get(n.name) in loose:
            _attach_loose(program.params[n.name], env[n], makers, labels)
    _pin_wholes(makers, labels)

    table = labels.table()

    def classes(found: dict[Any, Any]) -> dict[Any, Any]:
        return {k: table[torch.from_numpy(v)].numpy() for k, v in found.items()}

    elements = {
        n: torch.utils._pytree.tree_map(lambda t: table[t] if isinstance(t, Tensor) else t, v)
        for n, v in env.items()
        if v is not None
    }
    suspects = {
        k: set(table[torch.tensor(sorted(v), dtype=torch.int64)].tolist()) - {Labels.PIN}
        for k, v in labels.suspects.items()
    }
    axes = classes(labels.axes)
    families = {labels.find(x): HEADS for x in labels.heads} | {labels.find(x): UNITS for x in labels.units}
    return Coupling(
        elements,
        axes,
        classes(labels.pads),
        classes(labels.sizes),
        suspects,
        _groups(makers, axes, families),
        _held([*makers, *_untaken(makers, program)], labels),
    )


def _makers(labels: Labels, program: Program) -> list[Axis]:
    """The axes of parameters along which calls make channels, in the order of the calls."""
    made = dict.fromkeys(key for n in program.calls for key in rule(n, program).makes(n, program))
    return [key for key in made if key in labels.axes]


def _untaken(makers: Sequence[Axis], program: Program) -> list[Axis]:
    """The output axes of weights that calls read whose channels nothing describes."""
    known = {name for name, _ in makers}
    uses = [use for n in program.calls for use in rule(n, program).sites(n, program).items()]
    return list(
        dict.fromkeys((k, 0) for k, u in uses if u.multiplies and len(program.shapes[k]) > 1 and k not in known)
    )


def _given(n: Call, inputs: int, loose: set[str], labels: Labels, program: Program) -> Tensor | None:
    """Labels of a placeholder: one for all inputs; one for each element of a parameter that the code reads itself."""
    shape = _shape(n)
    if shape is None:
        return None
    if program.params.get(n.name) in loose:
        size = math.prod(shape)
        if size <= _LARGE:
            return labels.new(size).reshape(shape)
        return torch.full(shape, labels.fixed(f"the code reads {program.params[n.name]} itself"))
    return torch.full(shape, inputs if n.name in program.inputs else 0)


def _label(n: Call, see: Any, quiet: set[str], labels: Labels, program: Program) -> Any:
    """Labels of what a call answers; a call of constants only makes a constant, which joins the `quiet` ones."""
    if all(a.name in quiet for a in n.all_input_nodes):
        quiet.add(n.name)
        return shaped(n.meta["val"], lambda shape: torch.zeros(shape, dtype=torch.int64))
    return see(n.args[0])[n.args[1]] if _getitem(n) else rule(n, program).label(n, see, labels, program)


def _attach_loose(name: str, elements: Tensor, makers: Sequence[Axis], labels: Labels) -> None:
    """A parameter that the code reads itself (a learned scale, positions) is cut where one axis of it are channels."""
    for axis in range(elements.dim()):
        if (name, axis) in labels.axes:
            moved = elements.movedim(axis, -1)
            labels.union(moved, torch.from_numpy(labels.axes[name, axis]).expand_as(moved))
    axes = labels.varies(elements)
    made = {labels.find(int(x)) for maker in makers for x in labels.axes[maker]}
    if len(axes) == 1 and made & set(labels.roots(elements).unique().tolist()):
        labels.attach(name, axes[0], labels.joined(elements, axes[0]))
    else:
        labels.pin(elements, f"the code reads {name} itself")


def _pin_wholes(makers: Sequence[Axis], labels: Labels) -> None:
    """What cannot go without leaving a layer empty is not removable."""
    for name, axis in makers:
        rows = labels.roots(torch.from_numpy(labels.axes[name, axis]))
        if len(rows) > 1 and bool((rows == rows[0]).all()) and int(rows[0]):
            labels.pin(rows, f"those of {name} hang together, removing one would remove all")


def _groups(
    makers: Sequence[Axis], axes: dict[Axis, np.ndarray[Any, Any]], families: dict[int, str]
) -> tuple[Site, ...]:
    """The groups; `families`: class -> what such a class is, where it is more than a channel."""
    rank = {key: i for i, key in enumerate(makers)}
    where: dict[int, dict[Axis, list[int]]] = defaultdict(lambda: defaultdict(list))
    for key, classes in axes.items():
        for i, c in enumerate(classes.tolist()):
            if c > Labels.PIN:
                where[c][key].append(i)
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for label, parts in where.items():
        alike[tuple(sorted((k, len(v)) for k, v in parts.items()))].append(label)
    sites = []
    for signature, rows_of in alike.items():
        keys = [k for k, _ in signature]
        made = sorted((k for k in keys if k in rank), key=lambda k: rank[k])
        if not made:
            continue
        rows_of.sort(key=lambda c: where[c][made[0]][0])
        others = set(keys) - set(made)
        order = [*made, *(k for k in axes if k in others)]
        members = [_member(k, [where[c][k] for c in rows_of], len(axes[k])) for k in order]
        family = families.get(rows_of[0], "")
        sites.append((made[0], len(rows_of), tuple(members[: len(made)]), tuple(members[len(made) :]), family))
    sites.sort(key=lambda s: (rank[s[0]], s[2][0].index or ()))
    seen: dict[str, int] = defaultdict(int)
    out = []
    for (name, _), rows, writes, removes, family in sites:
        kind = f"{name}.{family or 'channel'}s"
        n = seen[kind]
        seen[kind] += 1
        full = kind if not n else f"{kind}.{n}"
        out.append(Site(full, "channels", (rows,), writes, removes=removes, family=family))
    return tuple(out)


def _held(makers: Sequence[Axis], labels: Labels) -> tuple[Held, ...]:
    """Of every weight that makes channels those that stay, by reason."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    of = {}
    for name, axis in makers:
        rows = labels.axes[name, axis].tolist() if (name, axis) in labels.axes else []
        of[name] = len(rows)
        for row in rows:
            if why := labels.why.get(labels.find(row)):
                found[name, why] += 1
    return tuple(Held(name, n, of[name], why) for (name, why), n in found.items())


def _member(key: tuple[str, int], rows: list[list[int]], size: int) -> Member:
    flat = [i for row in rows for i in row]
    index = None if flat == list(range(size)) else tuple(flat)
    return Member(key[0], key[1], len(rows[0]), index)


def _getitem(n: Call) -> bool:
    return getattr(n.target, "__name__", "") == "getitem"


def _shape(n: Call) -> tuple[int, ...] | None:
    value = n.meta.get("val")
    return tuple(int(s) for s in value.shape) if isinstance(value, Tensor) else None
