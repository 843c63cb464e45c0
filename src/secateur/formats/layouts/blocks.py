"""Layout `blocks`: what is kept fills whole blocks of a weight's 2-D view."""

from __future__ import annotations

from secateur.formats._describe import Method
from secateur.types import log2_choose


class Blocks(Method):
    """Blocks of R x C in the matrix of outputs by all else (1 to 64 a side); a kept one is stored dense.

    Columns are in memory's order or with the channels innermost, as `pack` finds it. Blocks at the end of an axis that
    a side does not divide are smaller. A file with a tensor in blocks has version 3.
    """

    code = 4
    stores = "R, C, the number of kept blocks, which ones, then every element inside them, zeros too"
    when = "weights of two or more axes whose nonzeros lie in blocks, where that is the smallest"
    size = "log2 C(n / (R C), kept blocks), values inside apart"
    reference = "Narang et al., arXiv:1711.02782"

    @staticmethod
    def position_bits(n: int, nnz: int, rows: int = 4, cols: int = 1) -> float:
        """Expected bits of `nnz` elements in whole blocks of `rows` x `cols` that divide the matrix of `n`.

        The coder spends log2 C(blocks, kept) and about 10 bytes of header, whatever the pattern of blocks.

        >>> round(Blocks.position_bits(65_536, 6_400))
        7555
        """
        size = rows * cols
        return log2_choose(n // size, nnz // size)
