"""Codec `matched`: an element is what followed, or preceded, its like before; signs apart."""

from __future__ import annotations

from secateur.formats._describe import Method


class Matched(Method):
    """Tensors that repeat themselves or an earlier one: windowed transforms, tiled rows, masks, tables."""

    code = 6
    stores = "which of eight predictors told the magnitude, its sign, and what none told"
    when = "repeats in rows, columns, mirrored, with other signs, or of an earlier tensor of the size"
    size = "new magnitudes at nearly full width, 0.001 to 0.5 for an element that was told"
    reference = "PAQ: Mahoney, Florida Tech CS-2005-16 (match model)"

    @staticmethod
    def value_bits(n: int, new: int, width: int = 32, told: float = 0.05) -> float:
        """Bits for `n` elements of which `new` have a magnitude that was not there before.

        >>> Matched.value_bits(1000, 100)
        3245.0
        """
        return new * width + (n - new) * told
