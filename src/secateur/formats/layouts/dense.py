"""Layout `dense`: every element has a value."""

from __future__ import annotations

from secateur.formats._describe import Method


class Dense(Method):
    """Elements in C order, zeros among them as values like any other."""

    code = 0
    stores = "every element, in C order (a mixed codebook: in the visiting order)"
    when = "few zeros; biases; small tensors whose zeros are cheaper as a codebook entry than as positions"
    size = "n * H0(values, zeros included)"

    @staticmethod
    def position_bits(n: int, nnz: int) -> float:
        """Bits for the places of the kept values: none.

        >>> Dense.position_bits(100, 40)
        0.0
        """
        return 0.0
