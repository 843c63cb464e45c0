"""What an operator kind tells about itself: how a channel's influence and a channel's label flow through it.

Three questions are asked of every ATen call, each on whole activation tensors (the example's shapes), so that views,
slices, permutes and concatenations need no axis bookkeeping: they are simply run on masks and labels.

positive   a function of 0/1 masks, non-negative and with positive slopes, whose support is structural influence:
           output element > 0 iff some input element that is > 0 can reach it. Its derivative runs influence backwards.
absorbed   which constant inputs the call can do without, because a bias can carry their contribution exactly.
label      which output elements belong to which coupled channel, and which parameter indices go with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from secateur.graph.program import Call, Program, owner, shape_of

Size = tuple[str, str]  # a module and its attribute


@dataclass(frozen=True)
class View:
    """How an operator sees its arguments during one flow computation."""

    mask: Callable[[Call], Tensor]  # float 0/1: does this element depend on the model's input
    nonzero: Callable[[Call], Tensor]  # float 0/1: may this element be other than zero (live, or a constant != 0)
    weight: Callable[[Call], Tensor]  # float 0/1: nonzero entries of a parameter, a leaf for derivatives
    value: Callable[[Call], Tensor]  # values on the example; meaningful where the element is constant
    is_param: Callable[[Any], bool]  # a parameter placeholder
    constant: Callable[[Call], Any]  # the value of what neither inputs nor parameters reach; ValueError of the others


@dataclass(frozen=True)
class Use:
    """What a call does with a parameter; several uses of one parameter make one site.

    Attributes:
        op: as `Site.op`.
        positions: how often it multiplies each weight per example.
        rows: the parameter's axes that run over outputs, as `Site.rows`.
        groups: of a convolution.
    """

    op: str
    positions: int = 0
    rows: tuple[int, ...] = (0,)
    groups: int = 1

    @property
    def multiplies(self) -> bool:
        """Is it a weight that inputs are multiplied with, one layer's own?"""
        return self.op not in ("bias", "norm", "embedding")


@dataclass
class Labels:
    """Union-find over channel labels. Label 0: no channel (padding). Classes with a reason in `why` are never removed.

    Label PIN: never removed either, for no reason of its own.

    Attributes:
        axes: (parameter or buffer, axis) -> the label of every index.
        pads: (padding module, side) -> the label of every padded channel.
        sizes: (module, attribute) -> the label of everything that this number counts.
        suspects: call -> labels whose removal its literal sizes may forbid.
        heads, units: labels of attention heads, and of hidden units of recurrent layers.
        why: root -> the reason for which the class stays, in words.
    """

    PIN: ClassVar[int] = 1
    parent: list[int] = field(default_factory=lambda: [0, 1])
    axes: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    pads: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    sizes: dict[Size, np.ndarray[Any, Any]] = field(default_factory=dict)
    suspects: dict[str, set[int]] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=lambda: {1: "they meet a value that stays"})
    heads: set[int] = field(default_factory=set)
    units: set[int] = field(default_factory=set)

    def new(self, n: int) -> Tensor:
        """`n` fresh labels, int64 [n]."""
        at = len(self.parent)
        self.parent.extend(range(at, at + n))
        return torch.arange(at, at + n)

    def fixed(self, why: str) -> int:
        """A fresh label that stays."""
        made = int(self.new(1))
        self.why[made] = why
        return made

    def find(self, label: int) -> int:
        """The representative of a label's class."""
        root = label
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[label] != root:
            self.parent[label], label = root, self.parent[label]
        return root

    def roots(self, labels: Tensor) -> Tensor:
        """`labels` with every entry replaced by its representative."""
        return self._replaced(labels, self.find)

    def classes(self, labels: Tensor) -> Tensor:
        """The same with PIN for all that stay."""
        return self._replaced(labels, self._class)

    def table(self) -> Tensor:
        """`classes` of all labels there are: for many tensors at once."""
        return torch.tensor([self._class(x) for x in range(len(self.parent))], dtype=torch.int64)

    def _class(self, label: int) -> int:
        root = self.find(label)
        return self.PIN if root in self.why else root

    def _replaced(self, labels: Tensor, by: Callable[[int], int]) -> Tensor:
        table = torch.zeros(len(self.parent), dtype=torch.int64)
        present = different(labels)
        table[present] = torch.tensor([by(x) for x in present.tolist()], dtype=torch.int64)
        return table[labels]

    def union(self, a: Tensor, b: Tensor) -> None:
        """Couple labels element by element; zeros couple nothing."""
        both = (a != 0) & (b != 0) & (a != b)
        n = len(self.parent)
        for pair in different(a[both] * n + b[both]).tolist():
            ra, rb = sorted((self.find(pair // n), self.find(pair % n)))
            if ra in self.why and rb in self.why:
                continue  # both stay, each for its own reason
            why = self.why.get(ra) or self.why.get(rb)
            if ra != self.PIN:
                self.parent[rb] = ra
            if why is not None:
                self.why[ra], self.why[rb] = why, why

    def pin(self, labels: Tensor, why: str) -> None:
        """These channels may never be removed; the first reason counts."""
        for x in different(labels).tolist():
            if x:
                self.why.setdefault(self.find(x), why)

    def attach(self, param: str, axis: int, labels: Tensor) -> None:
        """Index i of `param`'s axis goes when the channel labels[i] goes."""
        now = labels.numpy().astype(np.int64)
        before = self.axes.get((param, axis))
        if before is not None:
            self.union(torch.from_numpy(before), torch.from_numpy(now))
            now = np.where(before != 0, before, now)
        self.axes[param, axis] = now

    def made(self, param: str, axis: int, n: int) -> Tensor:
        """The labels of what a parameter makes along an axis: fresh ones, or those it has when it is used again."""
        known = self.axes.get((param, axis))
        labels = self.new(n) if known is None else torch.from_numpy(known)
        self.attach(param, axis, labels)
        return labels

    def suspect(self, where: str, labels: Tensor) -> None:
        """Sizes in the code may hinder the removal of these channels; a run will tell."""
        self.suspects.setdefault(where, set()).update(x for x in different(labels).tolist() if x > self.PIN)

    def along(self, labels: Tensor, axis: int) -> Tensor | None:
        """One label per index of `axis` when all elements of an index agree (zeros aside), else None."""
        rows = self.roots(labels).movedim(axis, 0).reshape(labels.shape[axis], -1)
        top = rows.max(dim=1).values
        return top if bool(((rows == top[:, None]) | (rows == 0)).all()) else None

    def joined(self, labels: Tensor, axis: int) -> Tensor:
        """One label per index of `axis`: those that meet in an index become one channel."""
        rows = self.roots(labels).movedim(axis, 0).reshape(labels.shape[axis], -1)
        top = rows.max(dim=1, keepdim=True).values
        self.union(rows, top.expand_as(rows))
        return self.roots(top[:, 0])

    def varies(self, labels: Tensor) -> list[int]:
        """The axes along which channels differ, zeros aside."""
        rows = self.classes(labels)
        tops = [rows.amax(axis, keepdim=True) for axis in range(rows.dim())]
        return [axis for axis, top in enumerate(tops) if bool(((rows != top) & (rows != 0)).any())]

    def active(self, labels: Tensor) -> bool:
        """Is there any channel that could be removed?"""
        return bool((self.classes(labels) > self.PIN).any())


def different(labels: Tensor) -> Tensor:
    """The different ones, ascending. A channel's elements mostly lie side by side: few are left to sort."""
    found: Tensor = labels.flatten().unique_consecutive().unique()
    return found


class Operator(ABC):
    """One kind of ATen call. Final classes live one kind per file; `targets` lists the calls they cover."""

    targets: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def positive(self, node: Call, view: View) -> Tensor | tuple[Tensor, ...]:
        """The positive function described above, on float masks."""

    @abstractmethod
    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        """Labels of the output elements (int64, output's shape), from those of the inputs (`see`)."""

    def settle(self, node: Call, out: Any, labels: Labels) -> None:
        """What the output's labels, once the whole program has run on labels, say of channels that go together."""
        return

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        """Bool mask over `source`'s elements: constants this call does not need as values. None = nothing."""
        return None

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        """Which entries of parameters that do not multiply a live channel (biases, norms) still matter."""
        return {}

    def inside(self, node: Call, need: Any, view: View, program: Program) -> dict[str, Tensor]:
        """Parameter name -> bool per row: what it computes is needed inside the call, whatever its results show."""
        return {}

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        """Parameter name -> what this call does with it, for the sites it makes."""
        return {}

    def makes(self, node: Call, program: Program) -> tuple[tuple[str, int], ...]:
        """The parameters whose entries make the output's channels, each with its axis that runs over them."""
        return ()


def shaped(value: Any, make: Callable[[tuple[int, ...]], Any]) -> Any:
    """What a call answers, each tensor replaced by `make` of its shape; numbers count as tensors without axes."""

    def one(v: Any) -> Any:
        return None if v is None else make(tuple(int(s) for s in v.shape) if isinstance(v, Tensor) else ())

    return torch.utils._pytree.tree_map(one, value)


def reduce_to(mask: Tensor, axis: int) -> Tensor:
    """any() over all axes but one."""
    return mask.movedim(axis, 0).reshape(mask.shape[axis], -1).any(dim=1)


def normal_axis(axis: int, dim: int) -> int:
    """A non-negative axis."""
    return axis + dim if axis < 0 else axis


def argument(node: Call, name: str, default: Any = None) -> Any:
    """An argument of an ATen call by its schema name, whether given by position or keyword."""
    schema = node.target._schema.arguments
    for i, a in enumerate(schema):
        if a.name == name:
            if name in node.kwargs:
                return node.kwargs[name]
            if i < len(node.args):
                return node.args[i]
            return a.default_value if a.has_default_value() else default
    return default


def told(node: Call) -> str:
    """`layer_norm (blocks.0.norm1)`: a call in words."""
    kind = str(node.target).removeprefix("aten.").partition(".")[0].strip("_")
    return f"{kind} ({owner(node) or 'forward'})"


def positions(node: Call, channels: int, program: Program) -> int:
    """How many vectors of `channels` numbers a value holds per example: so often its maker uses each weight."""
    return max(1, math.prod(shape_of(node)) // channels // max(1, program.batch))
