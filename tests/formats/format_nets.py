"""Small ONNX models for the format tests."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model_bytes(nodes, initializers, inputs, outputs, opset=18):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in initializers.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


def info(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def sparse(g, shape, density=0.1, n_values=8):
    menu = g.normal(size=n_values).astype(np.float16).astype(np.float32)
    return np.where(g.random(shape) < density, g.choice(menu, shape), 0).astype(np.float32)


def mlp(seed=0, width=40):
    g = np.random.default_rng(seed)
    weights = {
        "fc1.weight": sparse(g, (width, 64)), "fc1.bias": g.normal(size=width).astype(np.float32),
        "fc2.weight": sparse(g, (10, width), 0.4), "fc2.bias": sparse(g, (10,), 1.0),
    }  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
    ]
    return model_bytes(nodes, weights, [info("input", ["batch", 1, 8, 8])], [info("logits", ["batch", 10])])


def random_graph(seed):
    """A graph of random shape: unknown operators, shared and unused initializers, every attribute kind."""
    g = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(200)]
    g.shuffle(names)
    fresh = iter(names)
    inputs = [next(fresh) + ".in" for _ in range(g.integers(1, 4))]
    values = list(inputs)
    dtypes = ["float32", "float16", "int8", "int64", "uint8", "bool", "float64", "int32"]
    initializers = {}
    for _ in range(g.integers(0, 7)):
        shape = tuple(int(x) for x in g.integers(0, 6, g.integers(0, 5)))
        array = (g.normal(size=shape) * 3 * (g.random(shape) < 0.5)).astype(g.choice(dtypes))
        initializers[next(fresh) + ".w"] = np.asarray(array)
    values += list(initializers)
    nodes = []
    for _ in range(g.integers(1, 12)):
        reads = [str(g.choice(values)) if g.random() < 0.9 else "" for _ in range(g.integers(0, 5))]
        writes = [next(fresh) for _ in range(g.integers(1, 3))]
        attributes = {
            "alpha": float(g.normal()), "axis": int(g.integers(-3, 4)), "mode": "some text",
            "pads": [int(x) for x in g.integers(0, 3, 4)], "scales": [float(x) for x in g.normal(size=2)],
            "words": ["a", "bc"], "value": numpy_helper.from_array(g.normal(size=(2, 2)).astype(np.float32)),
        }  # fmt: skip
        kept = {k: v for k, v in attributes.items() if g.random() < 0.3}
        op = str(g.choice(["Conv", "Gemm", "Relu", "Add", "MyOp", "Flatten", "Resize"]))
        domain = "my.domain" if op == "MyOp" else ""
        nodes.append(helper.make_node(op, reads, writes, domain=domain, **kept))
        values += writes
    dims = lambda: [["batch", None, 3][g.integers(0, 3)] for _ in range(g.integers(0, 4))]  # noqa: E731
    graph = helper.make_graph(
        nodes, "g", [info(n, dims()) for n in inputs], [info(v, dims()) for v in values[-2:] if v not in initializers],
        [numpy_helper.from_array(v, k) for k, v in initializers.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", int(g.integers(11, 22))), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=int(g.integers(7, 11))).SerializeToString()


def lenet(weights):
    """LeNet-5 in the Caffe variant (ReLU after fc1 only) from a dict of its eight arrays."""
    nodes = [
        helper.make_node("Conv", ["input", "conv1.weight", "conv1.bias"], ["a"], kernel_shape=[5, 5]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], kernel_shape=[5, 5]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "fc1.weight", "fc1.bias"], ["f"], transB=1),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "fc2.weight", "fc2.bias"], ["output"], transB=1),
    ]
    return model_bytes(nodes, weights, [info("input", ["batch", 1, 28, 28])], [info("output", ["batch", 10])])
