"""Codec `raw`: the elements as they are."""

from __future__ import annotations

from secateur.formats._describe import Method


class Raw(Method):
    """The fallback that keeps every file within two bytes of the dense one."""

    code = 0
    stores = "every element, all bits"
    when = "nothing else is smaller (random bits)"
    size = "n * w"

    @staticmethod
    def value_bits(nnz: int, width: int = 32) -> float:
        """Bits for `nnz` values of `width` bits.

        >>> Raw.value_bits(10)
        320.0
        """
        return float(nnz * width)
