"""Codec `fields`: sign, exponent and leading mantissa bits predicted, the rest as they are."""

from __future__ import annotations

from secateur.formats._describe import Method


class Fields(Method):
    """Floating values without a codebook; zero bits at the end of all of them (float16 in float32) are left out."""

    code = 3
    stores = "sign, exponent bits, three mantissa bits by exponent (all adaptive), the other mantissa bits raw"
    when = "trained weights that were not quantised, fewer than 65,536 kept"
    size = "nnz * (about 3 + mantissa bits)"

    @staticmethod
    def value_bits(nnz: int, mantissa: int = 23, entropy: float = 3.2) -> float:
        """Bits for `nnz` values; `entropy` is that of sign and exponent together.

        >>> Fields.value_bits(10)
        262.0
        """
        return nnz * (mantissa + entropy)
