"""Codec `ints`: whole numbers by sign and size."""

from __future__ import annotations

from secateur.formats._describe import Method


class Ints(Method):
    """Shapes, axes and other integers; quantised weights mostly end in a codebook."""

    code = 4
    stores = "sign and Elias gamma of the size, adaptive"
    when = "integer tensors of many different values below 2^61"
    size = "nnz * about (2 log2 size + 1)"
    reference = "Elias, IEEE Trans. Inf. Theory 21(2), 1975"

    @staticmethod
    def value_bits(nnz: int, bits: float = 8.0) -> float:
        """Bits for `nnz` values of typically `bits` bits.

        >>> Ints.value_bits(4)
        68.0
        """
        return nnz * (2 * bits + 1)
