"""LSTM, GRU and Elman layers in ONNX, their parameters as the module has them.

ONNX orders gates otherwise than torch (LSTM: input, output, forget, cell; GRU: update, reset, new), stacks directions
and joins both biases. Split, Concat and Unsqueeze say so in the graph; runtimes compute them once, while loading. The
file then holds the parameters themselves, each once, under its name. Torch's own form slices at every run, by sizes
that it reads off the state, and unrolls Elman layers over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.tensor_typing import TFloat

Value = Any  # an onnxscript value


def translations() -> dict[Any, Callable[..., Any]]:
    """ATen call -> its form in ONNX, for torch's exporter."""
    aten = torch.ops.aten
    return {
        aten.lstm.input: _lstm,
        aten.gru.input: _gru,
        aten.rnn_tanh.input: _elman("Tanh"),
        aten.rnn_relu.input: _elman("Relu"),
    }


def projected(program: torch.export.ExportedProgram) -> bool:
    """Has an LSTM projections (`proj_size`)? ONNX has none: such a layer must be unrolled over time."""
    for n in program.graph.nodes:
        if str(n.target) == "aten.lstm.input":
            h, c = (a.meta["val"].shape[2] for a in n.args[1])
            if h != c:
                return True
    return False


def unrolled(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with its LSTM layers step by step."""
    from torch._decomp import get_decompositions

    made: torch.export.ExportedProgram = program.run_decompositions(
        dict(get_decompositions([torch.ops.aten.lstm.input]))
    )
    return made


def _lstm(
    input: TFloat,  # noqa: A002
    hx: Sequence[TFloat],
    params: Sequence[TFloat],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[TFloat, TFloat, TFloat]:
    def cell(x: Value, weights: Sequence[Value], states: Sequence[Value], **kind: Any) -> Any:
        return op.LSTM(x, *weights, None, *states, **kind)

    y, h, c = _stack(cell, input, hx, params, (0, 3, 1, 2), has_biases, num_layers, bidirectional, batch_first)
    return y, h, c


def _gru(
    input: TFloat,  # noqa: A002
    hx: TFloat,
    params: Sequence[TFloat],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[TFloat, TFloat]:
    def cell(x: Value, weights: Sequence[Value], states: Sequence[Value], **kind: Any) -> Any:
        return op.GRU(x, *weights, None, *states, linear_before_reset=1, **kind)  # as torch computes it

    y, h = _stack(cell, input, [hx], params, (1, 0, 2), has_biases, num_layers, bidirectional, batch_first)
    return y, h


def _elman(activation: str) -> Callable[..., tuple[TFloat, TFloat]]:
    def form(
        input: TFloat,  # noqa: A002
        hx: TFloat,
        params: Sequence[TFloat],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[TFloat, TFloat]:
        def cell(x: Value, weights: Sequence[Value], states: Sequence[Value], **kind: Any) -> Any:
            return op.RNN(x, *weights, None, *states, activations=[activation] * (1 + bidirectional), **kind)

        y, h = _stack(cell, input, [hx], params, (0,), has_biases, num_layers, bidirectional, batch_first)
        return y, h

    return form


def _stack(
    cell: Callable[..., Any],
    x: Value,
    states: Sequence[Value],
    params: Sequence[Value],
    order: tuple[int, ...],
    has_biases: bool,
    layers: int,
    both_ways: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """All layers: the last one's outputs, and the final states of each kind, stacked as torch stacks them."""
    ways, kinds = 2 if both_ways else 1, 4 if has_biases else 2
    begin = [None if _zeros(s) else s for s in states]
    last: list[list[Value]] = [[] for _ in states]
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
    for layer in range(layers):
        own = [params[(layer * ways + way) * kinds :][:kinds] for way in range(ways)]
        weights = _weights(own, order, has_biases)
        given = [s if s is None or layers == 1 else _part(s, layer * ways, ways) for s in begin]
        hidden = int(own[0][1].shape[1])
        y, *ends = cell(x, weights, given, hidden_size=hidden, direction="bidirectional" if both_ways else "forward")
        for found, end in zip(last, ends, strict=True):
            found.append(end)
        # [steps, ways, batch, hidden] -> [steps, batch, ways * hidden]
        axes = op.Constant(value_ints=[1])
        x = (
            op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, 2 * hidden]))
            if both_ways
            else op.Squeeze(y, axes)
        )
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
    return (x, *(e[0] if layers == 1 else op.Concat(*e, axis=0) for e in last))


def _weights(own: Sequence[Sequence[Value]], order: tuple[int, ...], has_biases: bool) -> list[Value]:
    """W, R and B of one layer from the parameters of its directions; B is None without biases."""
    made: list[Value] = []
    for part in (0, 1):
        made.append(_stacked([_gates(way[part], order) for way in own]))
    if has_biases:
        joined = [op.Concat(_gates(way[2], order), _gates(way[3], order), axis=0) for way in own]
        made.append(_stacked(joined))
    else:
        made.append(None)
    return made


def _gates(parameter: Value, order: tuple[int, ...]) -> Value:
    if len(order) == 1:
        return parameter
    parts = op.Split(parameter, num_outputs=len(order), axis=0)
    return op.Concat(*(parts[i] for i in order), axis=0)


def _stacked(ways: Sequence[Value]) -> Value:
    axes = op.Constant(value_ints=[0])
    each = [op.Unsqueeze(w, axes) for w in ways]
    return each[0] if len(each) == 1 else op.Concat(*each, axis=0)


def _part(state: Value, begin: int, n: int) -> Value:
    starts, ends = op.Constant(value_ints=[begin]), op.Constant(value_ints=[begin + n])
    return op.Slice(state, starts, ends, op.Constant(value_ints=[0]))


def _zeros(state: Value) -> bool:
    """A state of zeros is what ONNX begins with unasked."""
    maker = state.producer()
    if maker is None or maker.op_type != "Expand":
        return False
    filled = maker.inputs[0].producer()
    if filled is None or filled.op_type != "Constant" or "value" not in filled.attributes:
        return False
    return not filled.attributes["value"].as_tensor().numpy().any()
