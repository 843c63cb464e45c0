"""A graph whose chosen layers compute in integers: QuantizeLinear and DequantizeLinear around what stays float.

Weights are int8 with one scale per output, biases int32 on the grid of their sums (s_in * s_w), zero points 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from secateur.export._canonical import Canonical, _copies, put
from secateur.post_training.places import Grid, Layer
from secateur.post_training.reading import assembled

_TOP = 127
_BIAS_STEPS = 2.0**29  # most steps of a bias: the engine's sums hold 2^30
_DEAD_STEPS = 2.0**20  # steps of the bias of an output that no weight reaches


def written(g: Canonical, chosen: Sequence[Layer], grids: Sequence[Grid], scales: Sequence[float]) -> bytes:
    """The file.

    Args:
        g: not changed.
        chosen: layers that run in integers; the inputs of all of them lie on `grids`.
        scales: one per grid.
    """
    made = replace(g, nodes=_copies(g.nodes), constants=dict(g.constants), shapes=dict(g.shapes), types=dict(g.types))
    scale_of = {v: s for grid, s in zip(grids, scales, strict=True) for v in grid.values}
    for layer in chosen:
        _write_weights(made, g, layer, np.float32(scale_of[layer.node.input[0]]))
    rounded = {v for grid in grids for v in grid.values} | {x.node.output[0] for x in chosen}
    # A sum is rounded once, behind its Relu.
    rounded |= {i for n in made.nodes if n.op_type in ("Relu", "Clip") and n.output[0] in rounded for i in n.input[:1]}
    readers = [n for n in made.nodes if rounded & {*n.output}]
    _write_grids(made, grids, scales, readers)
    return assembled(made)


def weight_scales(weight: NDArray[np.float32], axis: int, bias: NDArray[np.float32] | None, x: np.float32) -> Any:
    """Float32, one per output: the largest magnitude fits into 127 steps, and the bias into the sums.

    An output without weights gets steps that hold its bias.
    """
    most = np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a != axis)).astype(np.float64)
    scale = most / _TOP
    if bias is not None:
        size = np.abs(bias.astype(np.float64)) / float(x)
        scale = np.maximum(scale, size / np.where(most > 0, _BIAS_STEPS, _DEAD_STEPS))
    scale = scale.astype(np.float32)
    return np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1))


def _write_weights(made: Canonical, g: Canonical, layer: Layer, x: np.float32) -> None:
    weight = g.constants[layer.weight]
    bias = g.constants[layer.bias].reshape(-1) if layer.bias else None
    scale = weight_scales(weight, layer.axis, bias, x)
    spread = scale.reshape([-1 if a == layer.axis else 1 for a in range(weight.ndim)])
    codes = np.clip(np.rint(weight / spread), -_TOP, _TOP).astype(np.int8)
    _dequantized(made, layer, layer.weight, codes, scale, layer.axis)
    if bias is not None:
        step = x * scale  # rounded to float32, as the engine has it
        steps = np.clip(np.rint(bias.astype(np.float64) / step), -(2**30), 2**30).astype(np.int32)
        _dequantized(made, layer, layer.bias, steps, step, 0)


def _dequantized(made: Canonical, layer: Layer, name: str, codes: Any, scale: Any, axis: int) -> None:
    """A constant as codes and the DequantizeLinear of its own that this layer reads."""
    reader = next(n for n in made.nodes if layer.result in n.output)
    if name not in reader.input:  # the Add behind a MatMul reads the bias only
        reader = next(n for n in made.nodes if layer.node.output[0] in n.output)
    stored, scales, dense = (_free(made, f"{name}{end}") for end in ("_q", "_scale", "_dequantized"))
    put(made, stored, codes)
    put(made, scales, scale)
    made.shapes[dense], made.types[dense] = list(codes.shape), 1
    made.nodes.insert(
        made.nodes.index(reader), helper.make_node("DequantizeLinear", [stored, scales], [dense], axis=axis)
    )
    for i, given in enumerate(reader.input):
        reader.input[i] = dense if given == name else given
    if not made.readers(name) and name not in made.output_names:
        made.constants.pop(name, None)


def _write_grids(made: Canonical, grids: Sequence[Grid], scales: Sequence[float], readers: Sequence[Any]) -> None:
    zeros: dict[bool, str] = {}
    for grid, scale in zip(grids, scales, strict=True):
        if grid.unsigned not in zeros:
            zeros[grid.unsigned] = _free(made, "zero_u8" if grid.unsigned else "zero_s8")
            put(made, zeros[grid.unsigned], np.zeros((), np.uint8 if grid.unsigned else np.int8))
        step = _free(made, f"{grid.values[0]}_scale")
        put(made, step, np.array(scale, np.float32))
        for value in grid.values:
            _round(made, value, step, zeros[grid.unsigned], readers)


def _round(made: Canonical, value: str, scale: str, zero: str, readers: Sequence[Any]) -> None:
    """What reads `value` reads it rounded; of an input only `readers` do. Outputs of the model keep their names."""
    codes, at = _free(made, f"{value}_q"), 0
    producer = made.producer(value)
    if producer is None:  # an input
        source, rounded = value, _free(made, f"{value}_dequantized")
        for n in readers:
            for i, given in enumerate(n.input):
                n.input[i] = rounded if given == value else given
    else:
        source, rounded = _free(made, f"{value}_float"), value
        at = made.nodes.index(producer) + 1
        for i, given in enumerate(producer.output):
            producer.output[i] = source if given == value else given
    pair = [
        helper.make_node("QuantizeLinear", [source, scale, zero], [codes]),
        helper.make_node("DequantizeLinear", [codes, scale, zero], [rounded]),
    ]
    made.nodes[at:at] = pair


def _free(g: Canonical, name: str) -> str:
    taken = {*g.constants, *g.output_names, *(i.name for i in g.inputs), *(o for n in g.nodes for o in n.output)}
    while name in taken:
        name += "_"
    return name
