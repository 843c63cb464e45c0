"""Layout `gaps`: how many zeros stand before each kept value."""

from __future__ import annotations

from secateur.formats._describe import Method
from secateur.types import log2_choose


class Gaps(Method):
    """The layout for large tensors: time grows with the kept values, not with the elements."""

    code = 2
    stores = "nnz, then the number of zeros before each kept value (Elias gamma, adaptive)"
    when = "more than 2^20 elements, or next to nothing kept"
    size = "log2 C(n, nnz) + about 0.5 %"
    reference = "Elias gamma: Elias, IEEE Trans. Inf. Theory 21(2), 1975"

    @staticmethod
    def position_bits(n: int, nnz: int) -> float:
        """Expected bits: log2 C(n, nnz), half a percent more.

        >>> Gaps.position_bits(8, 8)
        0.0
        """
        return 1.005 * log2_choose(n, nnz)
