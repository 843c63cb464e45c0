"""Functions of each element on its own: activations, scalings, casts, dropout (off in eval mode)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from secateur.graph.ops._operator import Labels, Operator, View
from secateur.graph.program import Call, Program

_NAMES = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid softplus softsign "
    "logsigmoid threshold tanhshrink hardshrink softshrink exp log log1p expm1 sqrt rsqrt square abs neg sign sin cos "
    "erf reciprocal dropout feature_dropout alpha_dropout clone contiguous detach alias to _to_copy clamp clamp_min "
    "clamp_max pow round floor ceil trunc frac rrelu native_dropout log_sigmoid hardsigmoid float logical_not "
    "bitwise_not isnan isinf isfinite nan_to_num sgn erfc erfinv tan asin acos atan sinh cosh asinh acosh atanh exp2 "
    "log2 log10 sinc digamma lgamma logit type_as lift_fresh_copy lift_fresh fake_quantize_per_tensor_affine"
)
_OVERLOADS = ("default", "Tensor_Scalar", "dtype", "dtype_layout", "device", "other", "decimals", "tensor_qparams")


class Elementwise(Operator):
    """Constants stay constants, channels keep their labels."""

    targets: ClassVar[frozenset[str]] = frozenset(f"aten.{n}.{o}" for n in _NAMES.split() for o in _OVERLOADS)

    def positive(self, node: Call, view: View) -> Tensor:
        return view.mask(node.args[0])

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Tensor:
        return see(node.args[0])
