"""Layout `sparse`: kept or not, element by element, predicted from eight contexts."""

from __future__ import annotations

from secateur.formats._describe import Method
from secateur.types import log2_choose


class Sparse(Method):
    """Unstructured zeros of up to 2^20 elements; rows, columns, kernels and N:M show as contexts that predict."""

    code = 1
    stores = "nnz, the visiting order, one predicted binary decision per element until nnz are found"
    when = "tensors of up to 2^20 elements with zeros, structured or not: the smallest for nearly all pruned weights"
    size = "log2 C(n, nnz) less what rows, columns, positions and neighbours give away (6-12 % on pruned LeNet-5)"
    reference = "logistic mixing: Mahoney, PAQ, Florida Tech CS-2005-16; shrunken rates: Gamma-Poisson"

    @staticmethod
    def position_bits(n: int, nnz: int) -> float:
        """Expected upper value in bits: log2 C(n, nnz).

        >>> round(Sparse.position_bits(400_000, 700))
        7414
        """
        return log2_choose(n, nnz)
