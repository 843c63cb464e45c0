"""A quantized net in integers, in PyTorch: the sums int32, the scales float32, the bits that every runtime should give.

Between grids {scale * q} the calls are computed as docs/design/int8.md has them, every float operation rounded by
itself, halves to even:

    layer   q = clamp(round(float(bias + sum w x) * (x.scale * w.scale / y.scale)))
    sum     q = clamp(round(float(a) * (a.scale / y.scale) + float(b) * (b.scale / y.scale)))
    mean    q = clamp(round(float(sum x) * (x.scale / y.scale / count)))
    else    q = clamp(round(value / y.scale)), the value float32

What moves values moves codes. A layer that nobody rounds answers float(sum w x) * (x.scale * w.scale) + bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from secateur.errors import UnsupportedError
from secateur.graph import activations


@dataclass(frozen=True)
class Codes:
    """Values on a grid: q int64 [...] within int32, scale float32 []."""

    q: Tensor
    scale: Tensor

    @property
    def real(self) -> Tensor:
        """float32: what DequantizeLinear gives."""
        return self.q.float() * self.scale


@dataclass(frozen=True)
class Pending:
    """A value that is rounded later: `over(scale)` is float32 value / scale in the order of the runtime."""

    over: Callable[[Tensor], Tensor]
    real: Callable[[], Tensor]


def run(module: fx.GraphModule, x: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
    """The answer of a net that `compress` gave with quantized activations.

    Args:
        module: its forward pass holds fake-quantize calls; the weights of layers that read grids lie on grids.
        x: float32, its only input.
        scales: weight's name -> float32 scales, one or one per output, of which the weight holds multiples.
    Raises:
        UnsupportedError: a call on codes that is none of those above.
    """
    env: dict[Any, Any] = {}
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "placeholder":
                env[node] = x
            elif node.op == "get_attr":
                env[node] = module.get_buffer(str(node.target))
            elif node.op == "output":
                answer: Tensor = _real(env[node.args[0]])
                return answer
            else:
                env[node] = _call(module, node, fx.map_arg(node.args, env.__getitem__), scales)
    raise UnsupportedError("integers: the graph of the net has no output")


def _call(module: fx.GraphModule, node: fx.Node, args: Any, scales: Mapping[str, Tensor]) -> Any:
    """One call on codes, pending values and tensors."""
    if node.target is torch.fake_quantize_per_tensor_affine:
        return _rounded(args[0], args[1], args[3], args[4])
    made = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    kind, value = activations.kind_of(made, node), args[0] if args else None

    def plain(inputs: Any) -> Any:
        """The call itself, on a tensor."""
        if made is not None:
            return made(inputs)
        called: Any = getattr(inputs, str(node.target)) if node.op == "call_method" else node.target
        return called(*([] if node.op == "call_method" else [inputs]), *args[1:], **node.kwargs)

    if kind == "through":
        return value
    if kind == "layer" and isinstance(value, Codes):
        return _layer(made, value, scales.get(f"{node.target}.weight"))
    if kind == "clamp" and isinstance(value, Pending):
        top = 6.0 if isinstance(made, nn.ReLU6) or node.target is functional.relu6 else math.inf
        return Pending(
            lambda s: value.over(s).clamp(min=0).minimum((top / s).round()), lambda: value.real().clamp(min=0, max=top)
        )
    if kind == "move" and isinstance(value, Codes):
        return Codes(plain(value.q.double()).long(), value.scale)
    if kind == "mean" and isinstance(value, Codes):
        return _mean(value, plain(value.q.double()), made)
    if kind == "sum" and all(isinstance(a, Codes) for a in args[:2]):
        return _sum(args[0], args[1])
    if kind == "join":
        parts: list[Any] = list(value or ())
        if all(isinstance(p, Codes) and torch.equal(p.scale, parts[0].scale) for p in parts):
            return Codes(plain([p.q for p in parts]), parts[0].scale)
        return plain([_real(p) for p in parts])
    if kind == "sum":
        return _real(args[0]) + _real(args[1])
    return plain(_real(value))


def _rounded(value: Any, scale: Tensor, low: int, high: int) -> Codes:
    over = value.over(scale) if isinstance(value, Pending) else _real(value) / scale
    return Codes(over.round().clamp(low, high).long(), scale)


def _layer(layer: Any, x: Codes, scale: Tensor | None) -> Pending:
    if scale is None:
        raise UnsupportedError(
            "integers: a layer reads codes and no scale of its weights is given; they lie on no grid"
        )
    weight = layer.weight.detach()
    found = scale.detach().reshape(-1).expand(len(weight))
    w = (weight.double() / found.double().reshape(-1, *[1] * (weight.dim() - 1))).round()
    # Sums of whole numbers below 2^53 are exact in double, in whatever order.
    if isinstance(layer, nn.Linear):
        total = functional.linear(x.q.double(), w)
    else:
        conv = functional.conv2d if isinstance(layer, nn.Conv2d) else functional.conv1d
        total = conv(x.q.double(), w, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    across = (1, -1, *[1] * (w.dim() - 2))
    step = x.scale * found
    offset = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    bias = (offset.double() / step.double()).round().reshape(across)
    if float((total + bias).abs().max()) >= 2**31:
        raise UnsupportedError("integers: a sum leaves int32")
    return Pending(
        lambda s: (total + bias).to(torch.int32).float() * (step / s).reshape(across),
        lambda: total.to(torch.int32).float() * step.reshape(across) + offset.reshape(across),
    )


def _sum(a: Codes, b: Codes) -> Pending:
    return Pending(
        lambda s: a.q.float() * (a.scale / s) + b.q.float() * (b.scale / s),
        lambda: a.real + b.real,
    )


def _mean(x: Codes, mean: Tensor, made: Any) -> Pending:
    """Of windows that lie inside the image, or of whole planes."""
    count = x.q.numel() // mean.numel()
    if isinstance(made, nn.AvgPool2d):
        count = math.prod(int(k) for k in _pair(made.kernel_size))
        if any(_pair(made.padding)) or made.ceil_mode or made.divisor_override:
            raise UnsupportedError("integers: an average pool with padding; only whole windows are computed here")
    elif mean.numel() != math.prod(x.q.shape[:2]):
        raise UnsupportedError("integers: a mean that is not one of whole planes; use nn.AvgPool2d")
    total = (mean * count).round().float()
    return Pending(lambda s: total * (x.scale / s / count), lambda: total / count * x.scale)


def _real(value: Any) -> Any:
    if isinstance(value, Codes):
        return value.real
    return value.real() if isinstance(value, Pending) else value
