"""The pieces of the sets: support, tied clusters, scaled codes, which are subspaces; and the matrices of one rank.

Each returns the very matrix it was frozen at when given it (bit for bit), so retraining starts from the member itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import Piece

_LLOYD = 2  # rounds from the last exact scale
_DRIFT = 0.05  # of the way to the next value; see `Clusters.advance`


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
    `gap` is the mean distance of a weight's value to the nearest other one (inf: there is no other).
    """

    labels: Tensor
    gap: float = math.inf

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

    def advance(self, latent: Tensor, member: Tensor, moved: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Values take their whole step; what a weight does beside its cluster is slowed.

        In the `n` steps it comes `_DRIFT` of the gap far on average, whatever the learning rate. An adaptive
        optimizer moves every weight by about the learning rate a step, also where its gradient is noise; at 4e-3 a
        weight crosses several values between two assignments, and each assignment then rounds another net. Few-valued
        separable CNN on MNIST, two epochs from the same projection (validation loss): 0.664, 0.217, 0.199 at lr 4e-3,
        1e-3, 2.5e-4 without this, 0.197, 0.216, 0.199 with 0.1 of the gap, 0.194, 0.205, 0.206 with 0.03.
        """
        shown = self.project(moved)
        own = moved - shown
        mean = float(own.abs().sum()) / max(int(own.count_nonzero()), 1)
        slow = min(_DRIFT * self.gap / (max(n, 1) * mean), 1.0) if mean else 1.0
        return latent + (shown - member) + slow * own, shown


@dataclass(frozen=True, eq=False)
class ScaledCodes(Piece):
    """Matrices scale * codes with a free scale per row (`per_row`) or one for all; `codes` whole numbers.

    `member` is the matrix it was frozen at: scale * codes is rounded to the dtype, so the scale read back from a
    member can differ in the last place; the member itself is returned unchanged. `least` and `top` bound the codes
    that `follow` may choose.
    """

    codes: Tensor
    member: Tensor
    per_row: bool = False
    least: int = 0
    top: int = 127

    def project(self, matrix: Tensor) -> Tensor:
        if torch.equal(matrix, self.member):
            return self.member.clone()
        q = self.codes.double()
        return (self._scale(matrix, q).to(matrix.dtype).double() * q).to(matrix.dtype).add_(0.0)  # no -0.0

    def follow(self, matrix: Tensor) -> Tensor:
        """Nearest multiples, `least` <= |code| <= `top`, of a scale refitted from the one frozen at (Lloyd's rounds).

        With the codes held, one scale cannot answer what single weights ask for: the net stands still while the same
        gradient is added up step after step (at lr 2e-3 the squared error of a 6-bit net rose 30-fold so).
        """
        scale = self._begin
        for _ in range(_LLOYD):
            codes = self._nearest(matrix, scale)
            scale = self._scale(matrix, codes)
        return (scale.to(matrix.dtype).to(scale.dtype) * self._nearest(matrix, scale)).to(matrix.dtype).add_(0.0)

    @cached_property
    def _begin(self) -> Tensor:
        """The scale of the member; in float32 where that is its type: half the time of a step for large weights."""
        scale = self._scale(self.member, self.codes.double())
        return scale.float() if self.member.dtype == torch.float32 else scale

    def _nearest(self, matrix: Tensor, scale: Tensor) -> Tensor:
        """Codes; halfway between two the smaller."""
        ratio = matrix.to(scale.dtype).abs() / torch.where(scale > 0, scale, torch.inf)
        return ratio.sub_(0.5).ceil_().clamp_(self.least, self.top).copysign_(matrix)

    def _scale(self, matrix: Tensor, codes: Tensor) -> Tensor:
        dims = [1] if self.per_row else [0, 1]
        top = (matrix.to(codes.dtype) * codes).sum(dims, keepdim=True)
        return top / codes.square().sum(dims, keepdim=True).clamp(min=1.0)


@dataclass(frozen=True, eq=False)
class Rank(Piece):
    """Matrices of the rank of `right` [cols, r] with the zero rows and columns of `member`: a curved piece.

    A step of subspace iteration from the row space that the member had: U = basis of W V, V = basis of W^T U, and again
    U; the answer is U U^T W. For W = Z + D, Z of the piece, that is Z + (U U^T D + D V V^T - U U^T D V V^T) up to
    order D^2, the orthogonal projection of D onto the tangent space at Z: both factors of Z move. It costs five thin
    products and three thin QR where a new SVD would cost cubes, and keeps nothing from step to step, so that a run
    that is taken up again is the same to the bit.

    Reference: Koch & Lubich, SIAM J. Matrix Anal. 29(2), 2007; Vandereycken, SIAM J. Optim. 23(2), 2013.
    """

    linear: ClassVar[bool] = False
    member: Tensor
    right: Tensor
    rows: Tensor
    cols: Tensor

    def project(self, matrix: Tensor) -> Tensor:
        if torch.equal(matrix, self.member):
            return self.member.clone()
        w = matrix[self.rows][:, self.cols].double()
        left = _basis(w @ self.right)
        left = _basis(w @ _basis(w.T @ left))
        out = torch.zeros_like(matrix)
        out[self.rows[:, None], self.cols] = (left @ (left.T @ w)).to(matrix.dtype)
        return out.add_(0.0)


def _basis(matrix: Tensor) -> Tensor:
    """Orthonormal columns that span those of a tall matrix."""
    q: Tensor = torch.linalg.qr(matrix)[0]
    return q
