"""Codec `same`: the bytes of an earlier tensor of the file."""

from __future__ import annotations

from secateur.formats._describe import Method


class Same(Method):
    """A tensor whose bytes an earlier one has, whatever its type and shape: two or three bytes."""

    code = 7
    stores = "how many tensors before the other one is"
    when = "two tensors of a file have the same bytes"
    size = "16 to 24"

    @staticmethod
    def value_bits(back: int) -> int:
        """Bits of the pointer to the tensor `back` before.

        >>> Same.value_bits(1)
        9
        """
        return 7 + 2 * back.bit_length()
