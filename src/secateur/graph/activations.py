"""Activations on 8-bit grids: the forward pass as an fx graph in which torch's own fake-quantize calls stand.

`find` says which values must lie on a grid so that the named layers run in integers: their inputs and, from there
backwards, whatever sums, pools, joins and functions lie in between. What the runtime rounds once gets one grid: a layer
and the ReLU behind it. What only moves values (max pools, reshapes) and what joins them keeps one scale, so that bytes
are moved. `rewrite` folds batch norms into the layers before them and writes the calls; `replay` repeats it by record.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.errors import FormatError, UnsupportedError, first_line
from secateur.graph.copying import copied
from secateur.types import Member, Site

_F = functional
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_ZERO = "activation_zero_point"
_SCALE = "_scale"
BYTE = {True: (0, 255), False: (-128, 127)}  # by: unsigned?

# What a call does to a grid, by module class and by function or method.
_KINDS: dict[str, tuple[Any, ...]] = {
    "clamp": (nn.ReLU, nn.ReLU6, torch.relu, torch.relu_, _F.relu, _F.relu_, _F.relu6, "relu", "relu_"),
    "through": (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, _F.dropout, _F.dropout2d, "contiguous"),
    "move": (
        *(nn.MaxPool1d, nn.MaxPool2d, nn.Flatten, _F.max_pool1d, _F.max_pool2d, torch.max_pool2d, torch.flatten),
        *(torch.reshape, torch.squeeze, torch.unsqueeze, "view", "reshape", "flatten", "squeeze", "unsqueeze"),
    ),
    "mean": (*(nn.AvgPool2d, nn.AdaptiveAvgPool2d, _F.avg_pool2d, _F.adaptive_avg_pool2d, torch.mean, "mean"),),
    "sum": (operator.add, operator.iadd, torch.add, "add", "add_"),
    "join": (torch.cat, torch.concat, torch.concatenate),
    "function": (
        *(nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish, nn.SiLU, nn.GELU, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Hardtanh),
        *(torch.sigmoid, torch.tanh, _F.hardswish, _F.hardsigmoid, _F.silu, _F.gelu, _F.leaky_relu, "sigmoid", "tanh"),
    ),
}
_BY_TARGET = {target: kind for kind, targets in _KINDS.items() for target in targets}
_POSITIVE = (nn.Sigmoid, nn.Hardsigmoid, torch.sigmoid, _F.hardsigmoid, "sigmoid")

Record = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """One scale and the calls whose results lie on it.

    Attributes:
        scale: the buffer's name in the rewritten module.
        unsigned: codes 0..255, for values that are never negative; else -128..127.
        nodes: names of the calls in the fx graph.
        readers: weights of the layers because of which it is there.
        shape: of the first value, on the example.
    """

    scale: str
    unsigned: bool
    nodes: tuple[str, ...]
    readers: tuple[str, ...]
    shape: tuple[int, ...] = ()

    @property
    def site(self) -> Site:
        """The place as plans and records name it: by its first call."""
        return Site(self.nodes[0], "activation", self.shape, (Member(self.scale),))


@dataclass
class Calls:
    """The forward pass as calls, batch norms folded where that is exact.

    Attributes:
        module: runs as the model does in evaluation mode.
        norms: (layer, norm that was folded into it).
    """

    module: fx.GraphModule
    norms: list[list[str]] = field(default_factory=list)


def calls(model: nn.Module) -> Calls:
    """Trace a copy of `model` symbolically, in evaluation mode, and fold its batch norms.

    Raises:
        UnsupportedError: the code branches on values or shapes, which a graph of calls cannot hold.
    """
    made = Calls(_traced(model))
    names = {n.target: n for n in made.module.graph.nodes if n.op == "call_module"}
    often = [n.target for n in made.module.graph.nodes if n.op == "call_module"]
    for name, node in names.items():
        before = node.args[0] if node.args else None
        if not isinstance(_module(made.module, node), _BatchNorm) or not isinstance(before, fx.Node):
            continue
        layer = _module(made.module, before)
        once = often.count(name) == 1 and often.count(before.target) == 1 and len(before.users) == 1
        if isinstance(layer, _LAYERS) and once and _module(made.module, node).running_mean is not None:
            made.norms.append([str(before.target), str(name)])
    for layer_name, norm_name in made.norms:
        _fold(made.module, layer_name, norm_name)
    return made


def find(module: fx.GraphModule, inputs: Iterable[Tensor], weights: Sequence[str]) -> tuple[Grid, ...]:
    """The grids that let the layers of `weights` run in integers, in the order of the calls.

    Args:
        module: of `calls`.
        inputs: the example, by position.
        weights: names of the weights of convolutions and linear layers.
    Raises:
        UnsupportedError: a weight that no call of such a layer uses, or rows of features (three axes) in a linear one.
    """
    with torch.no_grad():
        ShapeProp(module).propagate(*inputs)
    walk = _Walk(module)
    layers = [n for n in module.graph.nodes if isinstance(_module(module, n), _LAYERS)]
    for name in weights:
        if name not in {f"{n.target}.weight" for n in layers}:
            raise UnsupportedError(
                f"activations at {name}: no call of Conv1d, Conv2d or Linear as a module uses it; keep it float: "
                "quantize: {keep_float: [...]}"
            )
    for node in layers:
        name, shape = f"{node.target}.weight", _shape(node.args[0])
        if name not in weights:
            continue
        if isinstance(_module(module, node), nn.Linear) and len(shape) != 2:
            raise UnsupportedError(
                f"activations at {name}: its input {list(shape)} has {len(shape)} axes, and integer linear layers take "
                "[batch, features]; keep it float: quantize: {keep_float: [...]}"
            )
        walk.need(node.args[0], name)
    return walk.grids()


def rewrite(made: Calls, grids: Sequence[Grid]) -> tuple[fx.GraphModule, Record]:
    """Write the fake-quantize calls, their scales 1 as buffers; and the record for `replay`, a cut in `surgery.json`.

    Args:
        made: of `calls`; its module is changed.
    """
    _insert(made.module, grids)
    return made.module, {
        "version": 1,
        "edits": [],
        "biases": {},
        "pads": [],
        "norms": made.norms,
        "grids": [{"scale": g.scale, "unsigned": g.unsigned, "calls": list(g.nodes)} for g in grids],
    }


def replay(model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    """The rewritten form of a freshly built model; values are not set.

    Raises:
        FormatError: the record does not fit this model.
    """
    module = _traced(model)
    modules = dict(module.named_modules())
    for layer, norm in record["norms"]:
        if not isinstance(modules.get(layer), _LAYERS) or not isinstance(modules.get(norm), _BatchNorm):
            raise FormatError(f"surgery: no batch norm {norm!r} behind a layer {layer!r}")
        if modules[layer].weight.shape[0] != modules[norm].num_features:
            raise FormatError(f"surgery: batch norm {norm!r} does not fit the layer {layer!r}")
        _fold(module, layer, norm)
    grids = [Grid(g["scale"], bool(g["unsigned"]), tuple(g["calls"]), ()) for g in record["grids"]]
    known = {n.name for n in module.graph.nodes}
    for grid in grids:
        if not grid.scale.isidentifier() or not set(grid.nodes) <= known:
            raise FormatError(f"surgery: the model has no calls {list(grid.nodes)} for {grid.scale!r}")
    _insert(module, grids)
    return module


def round_biases(module: fx.GraphModule, scales: Mapping[str, Tensor], keep: Iterable[str] = ()) -> None:
    """Biases of integer layers onto the grid of their sums, in place: there they are int32 in a runtime.

    Off it, by half a step of the sums, one result in some hundred would round to another code than there.

    Args:
        module: of `rewrite`.
        scales: weight's name -> one scale, or one per output, whose multiples the weight holds.
        keep: parameters that stay as they are.
    """
    for node in module.graph.nodes:
        layer, weight = _module(module, node), f"{node.target}.weight"
        if not isinstance(layer, _LAYERS) or weight not in scales or layer.bias is None:
            continue
        source: Any = node.args[0]
        while isinstance(source, fx.Node) and source.target is not torch.fake_quantize_per_tensor_affine:
            through = type(_module(module, source) or source.target) in _KINDS["through"]
            source = source.args[0] if through or source.target in _KINDS["through"] else None
        if source is None or f"{node.target}.bias" in keep:
            continue
        step = module.get_buffer(source.args[1].target) * scales[weight].detach().reshape(-1)
        with torch.no_grad():
            layer.bias.copy_((layer.bias.double() / step).round() * step)


def kind_of(module: nn.Module | None, node: fx.Node) -> str:
    """What a call does to codes, by its kind alone: layer, clamp, through, move, mean, sum, join, function; or other.

    Args:
        module: that the call calls, where it does.
    """
    if isinstance(module, _LAYERS):
        return "layer"
    return _BY_TARGET.get(type(module) if module is not None else node.target, "other")


class _Walk:
    """Backwards from the inputs of layers to all values that must lie on a grid."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.order = {n: i for i, n in enumerate(module.graph.nodes)}
        self.readers: dict[fx.Node, list[str]] = {}
        self.parent: dict[fx.Node, fx.Node] = {}
        self.seen: set[tuple[fx.Node, str]] = set()

    def need(self, value: fx.Node, reader: str) -> None:
        """`value` must lie on a grid, for the layer `reader`."""
        if (value, reader) in self.seen:
            return
        self.seen.add((value, reader))
        kind = self.kind(value)
        if kind == "through":
            self.need(value.args[0], reader)  # type: ignore[arg-type]
            return
        self.readers.setdefault(value, []).append(reader)
        for source in self.behind(value, kind):
            self.need(source, reader)
            if kind in ("move", "join"):
                self.union(value, source)

    def behind(self, value: fx.Node, kind: str) -> list[fx.Node]:
        """The values that must lie on a grid because `value` does."""
        if kind == "clamp":
            source: Any = value.args[0]
            made = self.kind(source)
            if made in ("layer", "sum") and len(source.users) == 1:
                return self.behind(source, made)  # rounded once, after the clamp
            return [source]
        if kind in ("layer", "other"):
            return []
        return self.sources(value, kind)

    def sources(self, value: fx.Node, kind: str) -> list[fx.Node]:
        if kind == "join":
            return list(value.args[0] if value.args else value.kwargs["tensors"])  # type: ignore[arg-type]
        return [a for a in value.args[: 2 if kind == "sum" else 1] if isinstance(a, fx.Node)]

    def kind(self, node: fx.Node) -> str:
        """What a call does to a grid; `other` where it is not known to keep bytes."""
        module = _module(self.module, node)
        kind = kind_of(module, node)
        if node.op in ("placeholder", "get_attr", "output"):
            return "other"
        if kind == "sum":
            a, b = (*node.args, None, None)[:2]
            alike = isinstance(a, fx.Node) and isinstance(b, fx.Node) and _shape(a) == _shape(b) != ()
            return kind if alike and not {"alpha"} & node.kwargs.keys() else "other"
        if kind not in ("other", "join") and not (node.args and isinstance(node.args[0], fx.Node)):
            return "other"
        return kind

    def positive(self, node: fx.Node) -> bool:
        """Is the value never negative?"""
        kind = self.kind(node)
        if kind == "clamp" or type(_module(self.module, node)) in _POSITIVE or node.target in _POSITIVE:
            return True
        if kind in ("move", "through", "mean", "sum", "join"):
            return all(self.positive(s) for s in self.sources(node, kind))
        return False

    def root(self, node: fx.Node) -> fx.Node:
        while self.kind(node) == "through":
            node = node.args[0]  # type: ignore[assignment]
        while node in self.parent:
            node = self.parent[node]
        return node

    def union(self, a: fx.Node, b: fx.Node) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=self.order.__getitem__)
        if first is not second:
            self.parent[second] = first

    def grids(self) -> tuple[Grid, ...]:
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node in sorted(self.readers, key=self.order.__getitem__):
            groups.setdefault(self.root(node), []).append(node)
        return tuple(
            Grid(
                f"{nodes[0].name}{_SCALE}",
                all(self.positive(n) for n in nodes),
                tuple(n.name for n in nodes),
                tuple(dict.fromkeys(r for n in nodes for r in self.readers[n])),
                _shape(nodes[0]),
            )
            for nodes in groups.values()
        )


def _traced(model: nn.Module) -> fx.GraphModule:
    model = copied(model).eval()
    try:
        return fx.symbolic_trace(model)
    except Exception as e:  # whatever the user's code does with a proxy
        raise UnsupportedError(
            f"{type(model).__name__}: its activations cannot be quantized, for its forward is no fixed graph of calls "
            f"({first_line(e)}); write it without branches on values and loops over them, as torch.fx asks, or leave "
            "out quantize.activations"
        ) from e


def _fold(module: fx.GraphModule, layer_name: str, norm_name: str) -> None:
    """A batch norm into the layer before it, in double; its call is taken out."""
    layer: Any = module.get_submodule(layer_name)
    norm: Any = module.get_submodule(norm_name)
    with torch.no_grad():
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = factor * norm.weight.double()
        shift = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
        bias = shift * factor if norm.bias is None else shift * factor + norm.bias.double()
        weight = layer.weight
        weight.copy_((weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype))
        layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)
    node: Any = next((n for n in module.graph.nodes if n.op == "call_module" and n.target == norm_name), None)
    node.replace_all_uses_with(node.args[0])
    module.graph.erase_node(node)
    module.delete_submodule(norm_name)
    module.recompile()


def _insert(module: fx.GraphModule, grids: Sequence[Grid]) -> None:
    graph = module.graph
    nodes = {n.name: n for n in graph.nodes}
    last_input = [n for n in graph.nodes if n.op == "placeholder"][-1]
    module.register_buffer(_ZERO, torch.zeros((), dtype=torch.int32))
    for grid in grids:
        module.register_buffer(grid.scale, torch.ones(()))
        for name in grid.nodes:
            node = nodes[name]
            with graph.inserting_after(last_input if node.op == "placeholder" else node):
                scale = graph.get_attr(grid.scale)
            with graph.inserting_after(scale):
                zero = graph.get_attr(_ZERO)
            with graph.inserting_after(zero):
                made = graph.call_function(
                    torch.fake_quantize_per_tensor_affine, (node, scale, zero, *BYTE[grid.unsigned])
                )
            node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
    graph.lint()
    module.recompile()


def _module(module: fx.GraphModule, node: Any) -> Any:
    """The module that a call calls; None for other calls."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _shape(node: Any) -> tuple[int, ...]:
    known = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return tuple(int(s) for s in known.shape) if known is not None and hasattr(known, "shape") else ()


def _answer_shapes() -> None:
    """Torch 2.13 cannot trace its own call with tensors for scale and zero point: no form of it says the shapes."""
    name = "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams"
    if torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta"):
        return

    def shapes(x: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    _LIBRARY.impl(name.removeprefix("aten::"), shapes, "Meta")


_LIBRARY = torch.library.Library("aten", "IMPL")
_answer_shapes()
