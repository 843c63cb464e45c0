"""Codec `split`: sign and exponent by interleaved rANS, mantissas packed."""

from __future__ import annotations

from secateur.formats._describe import Method


class Split(Method):
    """Large floating tensors at memory speed: four interleaved states, frequencies of 14 bits."""

    code = 5
    stores = "frequencies, rANS words of sign and exponent, then mantissas bit by bit"
    when = "65,536 floating values and more (from 4,096 on where smaller)"
    size = "nnz * (H0(sign, exponent) + mantissa bits) + about 600"
    reference = "rANS: Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392"

    @staticmethod
    def value_bits(nnz: int, mantissa: int = 23, entropy: float = 3.2) -> float:
        """Bits for `nnz` values; `entropy` is that of sign and exponent together.

        >>> Split.value_bits(1000)
        26800.0
        """
        return nnz * (mantissa + entropy) + 600
