"""One call of every claimed operator in the words of opset 23, and the same call in the words of any older schema.

The older words are taken from the schemas themselves (`onnx.defs`): an input that an older schema does not have becomes
its attribute of that meaning, an attribute that it does not have is left out where it said the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

Array = np.ndarray[Any, Any]
LAST = 23


@dataclass
class Call:
    """An operator with its inputs (None: left out), those behind the first `free` constant."""

    op: str
    inputs: list[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    free: int = 1

    def model(self, opset: int, results: Sequence[Array], ir_version: int = 10) -> bytes:
        """The call as a file of one node with results like these; ONNX's checker has seen it."""
        names = [f"i{k}" if a is not None else "" for k, a in enumerate(self.inputs)]
        node = helper.make_node(self.op, names, [f"o{k}" for k in range(self.outputs)], name="node", **self.attributes)
        constants = [
            numpy_helper.from_array(a, n)
            for n, a in zip(names[self.free :], self.inputs[self.free :], strict=True)
            if a is not None
        ]
        # Before IR version 4 constants were inputs too.
        listed = [*self.feeds.items(), *((t.name, numpy_helper.to_array(t)) for t in constants if ir_version < 4)]
        infos = [_info(name, a) for name, a in listed]
        outputs = [_info(name, a) for name, a in zip(node.output, results, strict=True)]
        graph = helper.make_graph([node], "call", infos, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    @property
    def feeds(self) -> dict[str, Array]:
        """What the free inputs get."""
        return {f"i{k}": a for k, a in enumerate(self.inputs[: self.free]) if a is not None}


def _info(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def history(op: str) -> list[onnx.defs.OpSchema]:
    """The schemas of an operator, oldest first, up to opset 23."""
    found = [
        s for s in defs.get_all_schemas_with_history() if s.name == op and s.domain == "" and s.since_version <= LAST
    ]
    return sorted(found, key=lambda s: int(s.since_version))


# Attributes of older schemas that said what an input says now, where the name changed too.
RENAMED = {"constant_value": "value", "K": "k"}
SCALARS = ("value", "k", "min", "max", "ratio")


def at(call: Call, schema: onnx.defs.OpSchema) -> Call:
    """`call` in the words of an older schema."""
    newest = history(call.op)[-1]
    has = {i.name for i in schema.inputs}
    attributes = dict(call.attributes)
    inputs: list[Array | None] = []
    for k, value in enumerate(call.inputs):
        name = newest.inputs[min(k, len(newest.inputs) - 1)].name
        old = RENAMED.get(name, name)
        if call.op == "Pad" and schema.since_version == 1 and old == "pads":
            old = "paddings"
        if name not in has and old in schema.attributes:
            if value is not None:
                attributes[old] = value.ravel()[0].item() if old in SCALARS else value.ravel().tolist()
        elif name in has or value is not None:
            inputs.append(value)
    if call.op == "Resize" and schema.since_version == 10:
        assert attributes.pop("coordinate_transformation_mode") == "asymmetric"  # its only way
    if call.op == "Resize" and schema.since_version == 11:
        inputs[1] = np.zeros(0, np.float32)  # the region was no option yet
    for name in list(attributes):
        if name not in schema.attributes:
            default = newest.attributes[name].default_value
            said = helper.get_attribute_value(default) if default.name else None
            said = said.decode() if isinstance(said, bytes) else said
            assert attributes.pop(name) == said, f"{call.op} {schema.since_version} cannot say {name}"
    if "is_test" in schema.attributes:
        attributes["is_test"] = 1
    if call.op == "Cast" and schema.since_version == 1:
        attributes["to"] = TensorProto.DataType.Name(attributes["to"])
    if call.op == "Concat" and schema.since_version == 1 and attributes["axis"] == 1:
        del attributes["axis"]
    if call.op == "PRelu" and schema.since_version < 7:
        inputs[1] = inputs[1].ravel()  # type: ignore[union-attr]
    if call.op == "Tile" and schema.since_version == 1:
        repeats = call.inputs[1].tolist()  # type: ignore[union-attr]
        axis = next(i for i, r in enumerate(repeats) if r != 1)
        inputs[1:] = [np.float32(repeats[axis]).reshape(1), np.float32(axis).reshape(1)]
    if schema.attributes.get("consumed_inputs") and schema.attributes["consumed_inputs"].required:
        attributes["consumed_inputs"] = [0] * len(inputs)
    return Call(call.op, inputs, attributes, call.outputs, call.free)


def calls() -> dict[str, Call]:
    """The table."""
    rng = np.random.default_rng(0)

    def f32(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def ints(*values: int) -> Array:
        return np.asarray(values, np.int64)

    x, y, positive = f32(2, 3, 4, 5), f32(2, 3, 4, 5), np.abs(f32(2, 3, 4, 5)) + np.float32(0.1)
    truth, lies = x > 0, y > 0
    numbers, others = rng.integers(1, 9, (3, 4)), rng.integers(1, 9, (3, 4))
    found: dict[str, Call] = {}

    def add(op: str, *inputs: Array | None, outputs: int = 1, free: int = 1, **attributes: Any) -> None:
        found[op] = Call(op, list(inputs), attributes, outputs, free)

    for op in (
        "Abs", "Ceil", "Celu", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool",
        "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu",
        "Shape", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    ):  # fmt: skip
        add(op, x)
    for op in ("Log", "Sqrt", "Reciprocal"):
        add(op, positive)
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        add(op, x, y, free=2)
    for op in ("Mean", "Sum"):
        add(op, x, y, positive, free=3)
    for op in ("And", "Or", "Xor"):
        add(op, truth, lies, free=2)
    for op in ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"):
        add(op, x, ints(1, 3))
    add("ReduceLogSum", positive, ints(1, 3))
    add("CastLike", x, numbers, free=2)
    add("Size", x)
    add("IsNaN", np.where(truth, x, np.float32("nan")))
    add("Trilu", x, np.asarray(1, np.int64), upper=0)
    add("Not", truth)
    add("Equal", numbers, others, free=2)
    add("Mod", numbers, others, free=2)
    add("Pow", positive, y, free=2)
    add("Where", truth, x, y, free=3)
    add("Cast", x, to=TensorProto.INT32)
    add("Clip", x, np.float32(-0.5), np.float32(0.7))
    add("Concat", x, y, axis=1, free=2)
    add("Constant", value=numpy_helper.from_array(x[0, 0], "v"), free=0)
    add("ConstantOfShape", ints(2, 3), value=numpy_helper.from_array(np.asarray([1.5], np.float32)), free=0)
    add("Flatten", x, axis=2)
    add("Transpose", x, perm=[0, 2, 3, 1])
    add("ArgMax", x, axis=2)
    add("ArgMin", x, axis=1, keepdims=0)
    for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"):
        add(op, x, ints(1, 3), keepdims=0)
    for op in ("Softmax", "LogSoftmax"):
        add(op, x, axis=3)
    add("AveragePool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    add("MaxPool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    add("BatchNormalization", x, f32(3), f32(3), f32(3), positive[0, :, 0, 0].copy(), epsilon=1e-3)
    add("InstanceNormalization", x, f32(3), f32(3), epsilon=1e-3)
    add("GroupNormalization", f32(2, 6, 4), f32(6), f32(6), num_groups=3)
    add("LayerNormalization", x, f32(5), f32(5))
    add("RMSNormalization", x, f32(5))
    add("LRN", x, size=3, alpha=0.1)
    add("PRelu", x, f32(3, 1, 1))
    add("Conv", x, f32(4, 3, 2, 3), f32(4), pads=[1, 1, 0, 1], strides=[1, 2])
    add("ConvTranspose", x, f32(3, 2, 3, 3), f32(2), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    add("Gemm", f32(3, 4), f32(5, 4), f32(3, 5), transB=1, alpha=0.5, beta=2.0)
    add("MatMul", f32(3, 4), f32(4, 5))
    add("Einsum", f32(3, 4), f32(4, 5), equation="ij,jk->ik", free=2)
    q, r = f32(1, 2, 4, 4), f32(1, 2, 5, 4)
    add("Attention", q, r, r + np.float32(1), free=3)
    add("DepthToSpace", f32(1, 8, 2, 3), blocksize=2)
    add("SpaceToDepth", f32(1, 2, 4, 6), blocksize=2)
    add("Expand", f32(3, 1), ints(2, 3, 4))
    add("Gather", x, ints(2, 0), axis=1)
    add("GatherND", x, ints(1, 2, 0, -1).reshape(2, 2))
    add("Pad", x, ints(0, 0, 1, 2, 0, 0, 0, 3), np.float32(0.5), mode="constant")
    add("Range", ints(1)[0], ints(9)[0], ints(2)[0], free=0)
    add("Reshape", x, ints(0, -1, 5))
    add("Slice", x, ints(1, -3), ints(3, 100), ints(2, 3))
    add("Split", x, ints(1, 2), axis=1, outputs=2)
    add("Squeeze", f32(2, 1, 3, 1), ints(1))
    add("Unsqueeze", f32(2, 3), ints(0, 3))
    add("Tile", x, ints(1, 1, 3, 1))
    add("TopK", x, ints(2), axis=1, outputs=2)
    add(
        "Resize",
        x,
        None,
        np.asarray([1, 1, 2, 1.5], np.float32),
        mode="linear",
        coordinate_transformation_mode="asymmetric",
    )
    u8, s8 = rng.integers(0, 255, (2, 3, 4, 4)).astype(np.uint8), rng.integers(-9, 9, (4, 3, 2, 2)).astype(np.int8)
    scale, zero = np.float32(0.1), np.uint8(120)
    add("QuantizeLinear", x, scale, zero)
    add("DequantizeLinear", u8, scale, zero)
    add("DynamicQuantizeLinear", x, outputs=3)
    add("ConvInteger", u8, s8, zero)
    add("MatMulInteger", u8, rng.integers(-9, 9, (4, 6)).astype(np.int8), zero)
    add("QLinearConv", u8, scale, zero, s8, scale, np.int8(0), np.float32(0.5), zero)
    add("QLinearMatMul", u8[0, 0], scale, zero, u8[1, 0], scale, zero, np.float32(20), zero)
    return found
