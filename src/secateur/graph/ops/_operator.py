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

from secateur.graph.program import Call, Program, shape_of


@dataclass(frozen=True)
class View:
    """How an operator sees its arguments during one flow computation."""

    mask: Callable[[Call], Tensor]  # float 0/1: does this element depend on the model's input
    nonzero: Callable[[Call], Tensor]  # float 0/1: may this element be other than zero (live, or a constant != 0)
    weight: Callable[[Call], Tensor]  # float 0/1: nonzero entries of a parameter, a leaf for derivatives
    value: Callable[[Call], Tensor]  # values on the example; meaningful where the element is constant
    is_param: Callable[[Any], bool]  # a parameter placeholder


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
    """Union-find over channel labels. Label 0: no channel (padding). Label PIN: may never be removed."""

    PIN: ClassVar[int] = 1
    parent: list[int] = field(default_factory=lambda: [0, 1])
    axes: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    pads: dict[tuple[str, int], np.ndarray[Any, Any]] = field(default_factory=dict)
    suspects: dict[str, set[int]] = field(default_factory=dict)

    def new(self, n: int) -> Tensor:
        """`n` fresh labels, int64 [n]."""
        at = len(self.parent)
        self.parent.extend(range(at, at + n))
        return torch.arange(at, at + n)

    def find(self, label: int) -> int:
        """The representative of a label's class; PIN wins."""
        root = label
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[label] != root:
            self.parent[label], label = root, self.parent[label]
        return root

    def roots(self, labels: Tensor) -> Tensor:
        """`labels` with every entry replaced by its representative."""
        roots = torch.zeros(len(self.parent), dtype=torch.int64)
        present = _different(labels)
        roots[present] = torch.tensor([self.find(x) for x in present.tolist()], dtype=torch.int64)
        return roots[labels]

    def union(self, a: Tensor, b: Tensor) -> None:
        """Couple labels element by element; zeros couple nothing."""
        both = (a != 0) & (b != 0) & (a != b)
        n = len(self.parent)
        for pair in _different(a[both] * n + b[both]).tolist():
            ra, rb = sorted((self.find(pair // n), self.find(pair % n)))
            self.parent[rb] = ra  # the smaller one, so PIN stays a root

    def pin(self, labels: Tensor) -> None:
        """These channels may never be removed."""
        for x in _different(labels).tolist():
            if x:
                self.parent[self.find(x)] = self.PIN

    def attach(self, param: str, axis: int, labels: Tensor) -> None:
        """Index i of `param`'s axis goes when the channel labels[i] goes."""
        now = labels.numpy().astype(np.int64)
        before = self.axes.get((param, axis))
        if before is not None:
            self.union(torch.from_numpy(before), torch.from_numpy(now))
            now = np.where(before != 0, before, now)
        self.axes[param, axis] = now

    def suspect(self, where: str, labels: Tensor) -> None:
        """Sizes in the code may hinder the removal of these channels; a run will tell."""
        self.suspects.setdefault(where, set()).update(x for x in _different(labels).tolist() if x > self.PIN)

    def along(self, labels: Tensor, axis: int) -> Tensor | None:
        """One label per index of `axis` when all elements of an index agree (zeros aside), else None."""
        rows = self.roots(labels).movedim(axis, 0).reshape(labels.shape[axis], -1)
        top = rows.max(dim=1).values
        return top if bool(((rows == top[:, None]) | (rows == 0)).all()) else None


def _different(labels: Tensor) -> Tensor:
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

    def absorbed(self, node: Call, source: Call, live: Tensor, program: Program, view: View) -> Tensor | None:
        """Bool mask over `source`'s elements: constants this call does not need as values. None = nothing."""
        return None

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        """Which entries of parameters that do not multiply a live channel (biases, norms) still matter."""
        return {}

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        """Parameter name -> what this call does with it, for the sites it makes."""
        return {}


def active(labels: Tensor) -> bool:
    """Is there any channel that could be removed?"""
    return bool((labels > Labels.PIN).any())


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


def positions(node: Call, channels: int, program: Program) -> int:
    """How many vectors of `channels` numbers a value holds per example: so often its maker uses each weight."""
    return max(1, math.prod(shape_of(node)) // channels // max(1, program.batch))
