"""Codec `codebook`: the distinct values once, then which one each time."""

from __future__ import annotations

from secateur.formats._describe import Method


class Codebook(Method):
    """Up to 65,536 distinct values, or whole multiples of a scale; entry numbers are entropy coded."""

    code = 1
    stores = (
        "the entries (sorted magnitudes without their common trailing zero bits, Rice coded steps), then entry numbers"
    )
    when = "few distinct values; mixed contexts up to 256 entries and 2^20 elements, rANS from 65,536 kept values on"
    size = "nnz * H0(values) + entries * (mantissa bits + about 2)"
    reference = "k-means sharing: Han et al., ICLR 2016, arXiv:1510.00149; rANS: Duda, arXiv:1311.2540"

    @staticmethod
    def value_bits(nnz: int, entropy: float, entries: int, entry_bits: float = 12.0) -> float:
        """Bits for `nnz` values of `entropy` bits each from a codebook of `entries`.

        >>> Codebook.value_bits(700, 2.5, 8)
        1846.0
        """
        return nnz * entropy + entries * entry_bits
