"""What the canonical form leaves out is the default of that operator in the opset of the file: for every opset."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from secateur.formats import pack, unpack

# Values that are a default somewhere, by kind of attribute.
LIKELY: dict[Any, list[Any]] = {
    defs.OpSchema.AttrType.INT: [0, 1, -1, 2],
    defs.OpSchema.AttrType.FLOAT: [0.0, 1.0, 0.5, 0.9, 0.01, 0.2, 0.75, 1e-4, 1e-5],
    defs.OpSchema.AttrType.STRING: ["NOTSET", "constant", "nearest", "DCR", "none", "half_pixel"],
    defs.OpSchema.AttrType.INTS: [[0, 0, 0, 0], [1, 1], [0], [1]],
}
# Attributes without a default in the schema, which says it in words: nothing is padded, every step is one.
IN_WORDS = {"pads": 0, "strides": 1, "dilations": 1}


def default_of(schema: onnx.defs.OpSchema, name: str) -> Any:
    value = schema.attributes[name].default_value
    if value.type == onnx.AttributeProto.UNDEFINED:
        return None
    said = helper.get_attribute_value(value)
    return said.decode() if isinstance(said, bytes) else said


@pytest.mark.parametrize("opset", range(1, defs.onnx_opset_version() + 1))
def test_only_defaults_are_left_out(opset: int) -> None:
    """Every operator of this opset, with every attribute at values that are a default somewhere."""
    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain == "" and s.since_version <= opset]
    newest = {s.name: s for s in sorted(schemas, key=lambda s: s.since_version)}
    nodes, said = [], []
    for schema in newest.values():
        for name, attribute in schema.attributes.items():
            for value in LIKELY.get(attribute.type, []):
                nodes.append(helper.make_node(schema.name, ["x"], [f"y{len(nodes)}"], **{name: value}))
                said.append((schema, name, value))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [x], [last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    back = onnx.load_from_string(unpack(pack(model.SerializeToString()))).graph.node
    left_out = 0
    for node, (schema, name, value) in zip(back, said, strict=True):
        assert node.op_type == schema.name
        if any(a.name == name for a in node.attribute):
            continue
        left_out += 1
        default = default_of(schema, name)
        if default is None and name in IN_WORDS:
            assert set(value) == {IN_WORDS[name]}, (schema.name, name, value)
        else:
            assert default is not None, (schema.name, name, value)
            same = np.float32(value) == np.float32(default) if isinstance(value, float) else value == default
            assert same, (schema.name, name, value)
    assert left_out > 20
