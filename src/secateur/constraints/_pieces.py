"""The linear pieces of the sets: support, tied clusters, scaled codes. All are orthogonal projections.

Each returns the very matrix it was frozen at when given it (bit for bit), so retraining starts from the member itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from secateur.contracts import Piece


@dataclass(frozen=True, eq=False)
class Free(Piece):
    """Everything: the piece of a dense site."""

    def project(self, matrix: Tensor) -> Tensor:
        return matrix.clone()


@dataclass(frozen=True, eq=False)
class Support(Piece):
    """Matrices that are zero outside `mask` (bool [rows, cols])."""

    mask: Tensor

    @cached_property
    def _outside(self) -> Tensor:
        return ~self.mask

    def project(self, matrix: Tensor) -> Tensor:
        return matrix.masked_fill(self._outside, 0.0).add_(0.0)  # -0.0 would be stored as a value


@dataclass(frozen=True, eq=False)
class Clusters(Piece):
    """Matrices with one free value per cluster; `labels` int64 [rows, cols], -1 = fixed at zero.

    A cluster's mean is taken from its first element, so equal values give exactly themselves.
    """

    labels: Tensor

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kept = (self.labels.flatten() >= 0).nonzero().flatten()
        labels = self.labels.flatten()[kept]
        n = int(labels.max()) + 1 if labels.numel() else 0
        sizes = torch.bincount(labels, minlength=n)
        at = torch.arange(labels.numel(), device=labels.device)
        first = torch.full((n,), labels.numel(), device=labels.device).scatter_reduce(0, labels, at, "amin")
        return kept, labels, sizes.clamp(min=1).double(), first.clamp(max=max(labels.numel() - 1, 0))

    def project(self, matrix: Tensor) -> Tensor:
        kept, labels, sizes, first = self._flat
        out = torch.zeros_like(matrix).flatten()
        if labels.numel():
            x = matrix.flatten()[kept].double()
            start = x[first]
            total = torch.zeros_like(start).index_add_(0, labels, x - start[labels])
            out[kept] = (start + total / sizes)[labels].to(matrix.dtype).add_(0.0)
        return out.view_as(matrix)


@dataclass(frozen=True, eq=False)
class ScaledCodes(Piece):
    """Matrices scale * codes with a free scale per row (`per_row`) or one for all; `codes` whole numbers.

    `member` is the matrix it was frozen at: scale * codes is rounded to the dtype, so the scale read back from a
    member can differ in the last place; the member itself is returned unchanged.
    """

    codes: Tensor
    member: Tensor
    per_row: bool = False

    def project(self, matrix: Tensor) -> Tensor:
        if torch.equal(matrix, self.member):
            return self.member.clone()
        q = self.codes.double()
        dims = [1] if self.per_row else [0, 1]
        scale = (matrix.double() * q).sum(dims, keepdim=True) / q.square().sum(dims, keepdim=True).clamp(min=1.0)
        return (scale.to(matrix.dtype).double() * q).to(matrix.dtype).add_(0.0)  # no -0.0
