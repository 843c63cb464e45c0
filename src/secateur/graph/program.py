"""A captured network as data: a flat graph of ATen calls and what its placeholders mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from secateur.types import Weights

# A torch.fx.Node. Its own argument types are unions of everything, of no use to a type checker.
Call: TypeAlias = Any


@dataclass(frozen=True)
class Program:
    """A captured network: one `torch.fx` graph of ATen calls and what its placeholders mean.

    Attributes:
        nodes: in execution order, functional (in-place calls are rewritten to their pure forms).
        params: placeholder name -> parameter name (tied parameters have one name, the first).
        buffers: placeholder name -> buffer name.
        static: placeholder or attribute name -> tensor that is neither (constants of the code).
        inputs: placeholder names of the model's inputs, in order.
        example: the tensors given for them (a single example where rows are examples).
        batched: are rows along the inputs' first axes examples?
        batch: how many examples the inputs hold.
        shapes: parameter name -> shape.
        buffer_values: buffer name -> its value when captured.
        kinds: module name -> class, for the calls' owners.
        frozen: names of the parameters that do not ask for a gradient.
        rebuild: from a list of inputs, in order, to (args, kwargs) of the model's forward.
    """

    nodes: tuple[Call, ...]
    params: dict[str, str]
    buffers: dict[str, str]
    static: dict[str, Tensor]
    inputs: tuple[str, ...]
    example: dict[str, Tensor]
    batch: int
    batched: bool
    shapes: dict[str, tuple[int, ...]]
    param_values: dict[str, Tensor]
    buffer_values: dict[str, Tensor]
    kinds: dict[str, type[nn.Module]]
    frozen: frozenset[str]
    rebuild: Callable[[list[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    _noisy: dict[tuple[int | None, torch.dtype | None], dict[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _constants: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Only the computing nodes."""
        return tuple(n for n in self.nodes if n.op == "call_function")

    def given(self, node: Call, weights: Weights | None = None) -> Any:
        """The tensor behind a placeholder or attribute; parameters and buffers from `weights` where it has them."""
        name = self.params.get(node.name) or self.buffers.get(node.name)
        if name is None:
            return self.static.get(node.name, self.example.get(node.name))
        own = self.param_values if node.name in self.params else self.buffer_values
        return (weights or {}).get(name, own[name])

    def constant(self, node: Call) -> Any:
        """The value of a node that no input and no parameter reaches, as when captured; ValueError where one does."""
        if node.name not in self._constants:
            self._constants[node.name] = self._fixed(node)
        return self._constants[node.name]

    def _fixed(self, node: Call) -> Any:
        if node.name in self.inputs or node.name in self.params:
            raise ValueError(f"{node.name} is not constant")
        if node.op != "call_function":
            return self.given(node)
        return node.target(*fx.node.map_arg(node.args, self.constant), **fx.node.map_arg(node.kwargs, self.constant))

    def noisy(self, batch: int | None, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """The example inputs under noise, the same at every call, so that they are drawn once for all removals.

        Args:
            batch: rows of examples; None: as many as the example has, as where rows are no examples.
            dtype: of what floats; None: each its own.
        """
        at = (batch if self.batched else None, dtype)
        if at not in self._noisy:
            self._noisy[at] = self._draw(*at)
        return {k: t.clone() for k, t in self._noisy[at].items()}  # forward may work in place

    def _draw(self, batch: int | None, dtype: torch.dtype | None) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch or 0)
        made = {}
        for name, t in self.example.items():
            rows = t
            if batch is not None and t.dim():
                rows = t[torch.arange(batch, device=t.device) % t.shape[0]]
            if t.is_floating_point():
                noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(t.device)
                rows = (rows + noise * (1 + t.double().std(correction=0))).to(dtype or t.dtype)
            made[name] = rows
        return made

    @property
    def output(self) -> Call:
        """The output node; its inputs are the model's outputs."""
        return self.nodes[-1]


def owner(node: Call) -> str:
    """Name of the innermost module whose forward made this call ('' = the model itself)."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def shape_of(node: Call) -> tuple[int, ...]:
    """The shape of a tensor node on the example inputs."""
    return tuple(int(s) for s in node.meta["val"].shape)
