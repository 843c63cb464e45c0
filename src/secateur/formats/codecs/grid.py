"""Codec `grid`: whole numbers times one scale."""

from __future__ import annotations

from secateur.formats._describe import Method


class Grid(Method):
    """float32 values that are q * scale to the bit, q up to 65,536 in size."""

    code = 2
    stores = "the scale, then q of each kept value (sign and Elias gamma, adaptive)"
    when = "uniform levels, more of them than a codebook pays for"
    size = "nnz * about H0(q) + 32"

    @staticmethod
    def value_bits(nnz: int, entropy: float) -> float:
        """Bits for `nnz` values whose whole numbers have `entropy` bits.

        >>> Grid.value_bits(100, 6.0)
        632.0
        """
        return nnz * entropy + 32
