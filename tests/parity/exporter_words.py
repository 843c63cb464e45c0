"""How exporters say one thing in different opsets; the words of `make_exporters.py` and `old_exporters.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes in order; where an operator changed with the opset, the way of saying it goes along."""

    def __init__(self, opset: int, seed: int = 0) -> None:
        self.opset, self.rng = opset, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: object, name: str, dtype: type = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, name: str) -> str:
        fan = int(np.prod(shape[1:])) or 1
        return self.const(self.rng.standard_normal(shape) / np.sqrt(fan), name)

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output.split(":")[0], **attributes))
        return output

    def axes(self, op: str, x: str, axes: list[int], output: str, since: int, **attributes: object) -> str:
        """Squeeze, Unsqueeze, ReduceMean: axes are an attribute before opset `since`, an input from it on."""
        if self.opset < since:
            return self.node(op, [x], output, axes=axes, **attributes)
        return self.node(op, [x, self.const(axes, f"{output}/axes", np.int64)], output, **attributes)

    def pad(self, x: str, pads: list[int], output: str, name: str) -> str:
        if self.opset < 11:
            return self.node("Pad", [x], output, mode="constant", pads=pads, value=0.0)
        return self.node("Pad", [x, self.const(pads, name, np.int64)], output, mode="constant")

    def bounds(self, low: str, high: str) -> list[str]:
        """0 and 6 under these names; attributes of Clip before opset 11."""
        return [] if self.opset < 11 else [self.const(0.0, low), self.const(6.0, high)]

    def clip(self, x: str, bounds: list[str], output: str) -> str:
        """Between 0 and 6."""
        attributes = {} if bounds else {"min": 0.0, "max": 6.0}
        return self.node("Clip", [x, *bounds], output, **attributes)

    def first(self, x: str, output: str) -> str:
        """x[0:1] of a vector."""
        if self.opset < 10:
            return self.node("Slice", [x], output, starts=[0], ends=[1], axes=[0])
        zero, one = self.const([0], "const_starts", np.int64), self.const([1], "const_ends", np.int64)
        return self.node("Slice", [x, zero, one, zero], output)

    def reshape(self, x: str, shape: list[int], output: str) -> str:
        return self.node("Reshape", [x, self.const(shape, f"{output}/shape", np.int64)], output)

    def upsample(self, x: str, scales: Sequence[float], name: str, output: str) -> str:
        """To the nearest, scales an attribute, then a constant node; Resize from opset 10 on."""
        if self.opset < 9:
            return self.node("Upsample", [x], output, mode="nearest", scales=[float(s) for s in scales])
        value = numpy_helper.from_array(np.asarray(scales, np.float32), name)
        scale = self.node("Constant", [], name, value=value)
        return self.node("Upsample" if self.opset < 10 else "Resize", [x, scale], output, mode="nearest")

    def model(self, inputs: dict[str, list[int | str]], outputs: list[str], producer: str) -> bytes:
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        if self.opset < 9:  # of IR version 3, where constants were inputs too
            infos += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in self.constants]
        graph = helper.make_graph(
            self.nodes,
            producer,
            infos,
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(
            graph, opset_imports=opsets, ir_version=3 if self.opset < 9 else 8, producer_name=producer
        )
        return bytes(made.SerializeToString(deterministic=True))
