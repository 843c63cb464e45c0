"""Which channels must go together: labels run through the program, rows of parameters that share one are a group."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.graph.flow import loose_params
from secateur.graph.ops import rule
from secateur.graph.ops._operator import Labels, shaped
from secateur.graph.ops.convolution import Convolution
from secateur.graph.ops.linear import Linear
from secateur.graph.program import Call, Program
from secateur.types import Member, Site


@dataclass(frozen=True)
class Coupling:
    """The labels of one program.

    Attributes:
        elements: node -> int64 class of every activation element (0 none, 1 not removable).
        axes: (parameter or buffer, axis) -> int64 class of every index.
        pads: (padding module, side) -> class of every padded channel on that side.
        suspects: call -> classes whose removal its literal sizes may forbid.
        groups: the `channels` sites.
    """

    elements: dict[Call, Any]
    axes: dict[tuple[str, int], np.ndarray[Any, Any]]
    pads: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    suspects: dict[str, set[int]] = field(default_factory=dict)
    groups: tuple[Site, ...] = ()


def couple(program: Program) -> Coupling:
    """Run labels through the program and gather the groups."""
    labels = Labels()
    env: dict[Call, Any] = {}

    def see(a: Call) -> Any:
        return env[a]

    for n in program.nodes:
        if n.op in ("placeholder", "get_attr"):
            shape = _shape(n)
            env[n] = None if shape is None else torch.full(shape, labels.PIN if n.name in program.inputs else 0)
        elif n.op == "call_function":
            env[n] = env[n.args[0]][n.args[1]] if _getitem(n) else _label(n, see, labels, program)
        else:
            for a in n.all_input_nodes:
                for part in torch.utils._pytree.tree_leaves(env[a]):
                    if isinstance(part, Tensor):
                        labels.pin(part)
    for name in loose_params(program):
        for axis, size in enumerate(program.shapes[name]):
            labels.attach(name, axis, torch.full((size,), labels.PIN))
    elements = {
        n: torch.utils._pytree.tree_map(lambda t: labels.roots(t) if isinstance(t, Tensor) else t, v)
        for n, v in env.items()
        if v is not None
    }
    axes = {k: labels.roots(torch.from_numpy(v)).numpy() for k, v in labels.axes.items()}
    pads = {k: labels.roots(torch.from_numpy(v)).numpy() for k, v in labels.pads.items()}
    suspects = {k: {labels.find(x) for x in v} - {labels.PIN} for k, v in labels.suspects.items()}
    return Coupling(elements, axes, pads, suspects, _groups(program, axes))


def _label(n: Call, see: Any, labels: Labels, program: Program) -> Any:
    if all(
        a.name in program.params or a.name in program.buffers or a.name in program.static for a in n.all_input_nodes
    ):
        return shaped(n.meta["val"], lambda shape: torch.zeros(shape, dtype=torch.int64))
    return rule(n, program).label(n, see, labels, program)


def _groups(program: Program, axes: dict[tuple[str, int], np.ndarray[Any, Any]]) -> tuple[Site, ...]:
    producers = [
        program.params[n.args[1].name] for n in program.calls if isinstance(rule(n, program), Convolution | Linear)
    ]
    rank = {name: i for i, name in enumerate(dict.fromkeys(producers))}
    where: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
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
        made = sorted((k for k in keys if k[1] == 0 and k[0] in rank), key=lambda k: rank[k[0]])
        if not made:
            continue
        rows_of.sort(key=lambda c: where[c][made[0]][0])
        order = [*made, *(k for k in axes if k in set(keys) - set(made))]
        members = [_member(k, [where[c][k] for c in rows_of], len(axes[k])) for k in order]
        sites.append((made[0][0], len(rows_of), tuple(members[: len(made)]), tuple(members[len(made) :])))
    sites.sort(key=lambda s: (rank[s[0]], s[2][0].index or ()))
    seen: dict[str, int] = defaultdict(int)
    out = []
    for name, rows, writes, removes in sites:
        n = seen[name]
        seen[name] += 1
        full = f"{name}.channels" if not n else f"{name}.channels.{n}"
        out.append(Site(full, "channels", (rows,), writes, removes=removes))
    return tuple(out)


def _member(key: tuple[str, int], rows: list[list[int]], size: int) -> Member:
    flat = [i for row in rows for i in row]
    index = None if flat == list(range(size)) else tuple(flat)
    return Member(key[0], key[1], len(rows[0]), index)


def _getitem(n: Call) -> bool:
    return getattr(n.target, "__name__", "") == "getitem"


def _shape(n: Call) -> tuple[int, ...] | None:
    value = n.meta.get("val")
    return tuple(int(s) for s in value.shape) if isinstance(value, Tensor) else None
