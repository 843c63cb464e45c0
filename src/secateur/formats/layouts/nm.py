"""Layout `nm`: exactly N kept in each group of M input channels."""

from __future__ import annotations

from secateur.formats._describe import Method
from secateur.types import log2_choose


class Nm(Method):
    """N:M groups along axis 1; the last places of a group follow from the first."""

    code = 3
    stores = "M, N, then per group the places, adaptive by place and count so far; forced places cost nothing"
    when = "every group of 2, 4, 8, 16 or 32 consecutive columns keeps the same number"
    size = "n / M * log2 C(M, N)"
    reference = "Zhou et al., ICLR 2021, arXiv:2102.04010"

    @staticmethod
    def position_bits(n: int, nnz: int, group: int = 4) -> float:
        """Expected bits for `group` columns a group.

        >>> round(Nm.position_bits(400, 200), 1)
        258.5
        """
        return n / group * log2_choose(group, round(group * nnz / n)) if n else 0.0
