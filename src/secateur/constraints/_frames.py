"""What is stored of weights that lie in several sets of supports at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secateur.contracts import Constraint
from secateur.types import Level, Packing

Part = tuple[Constraint, Level, Packing]


def joint_frame(parts: Sequence[Part], shape: tuple[int, int]) -> Packing:
    """The packing of the intersection: what the set that keeps least says, or fewer where one limits another's units.

    Of r rows of which each keeps half, as N:M does, no more than half of r rows is left. A bound; sets that take
    away the same weights do not multiply.
    """
    found = [packing for _, _, packing in parts]
    for whole, at, outer in parts:
        if not whole.unit or at is None:
            continue
        share, inner = min(
            ((p.within(whole.unit, shape, level), packing) for p, level, packing in parts if p is not whole),
            key=lambda x: x[0],
        )
        if share < 1:
            found.append(_inside(outer, inner, share))
    return min(found, key=lambda p: (p.nnz, p.ideal_bits))


def _inside(outer: Packing, inner: Packing, share: float) -> Packing:
    """Of what `outer` keeps the share that `inner` leaves; where both name their positions, those of the kept units."""
    nnz = int(outer.nnz * share + 1e-9 * outer.n)
    bits = expected = None
    if outer.structure_bits is not None and inner.structure_bits is not None:
        bits = outer.structure_bits + inner.structure_bits * outer.nnz / max(outer.n, 1)
        expected = min((p.expected_bits for p in (outer, inner) if p.expected_bits is not None), default=None)
    return replace(outer, nnz=nnz, structure_bits=bits, expected_bits=expected)
