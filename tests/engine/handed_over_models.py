"""Small models with what the engine has no notion of: control flow, sequences, strings, few bits, functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Feeds = dict[str, Any]
Model = tuple[bytes, Feeds]
F, N, S, H = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.FLOAT16
node, info = helper.make_node, helper.make_tensor_value_info


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return rng().standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto],
    constants: dict[str, Any] | None = None, opset: int = 17, domains: dict[str, int] | None = None, **more: Any,
) -> bytes:  # fmt: skip
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    sparse = more.pop("sparse", [])
    g = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors + more.pop("tensors", []))
    g.sparse_initializer.extend(sparse)
    sets = {"": opset, **(domains or {})}
    opsets = [helper.make_opsetid(d, v) for d, v in sets.items() if v]
    data: bytes = helper.make_model(g, opset_imports=opsets, ir_version=10, **more).SerializeToString()
    return data


def layer(x: str, y: str) -> tuple[list[NodeProto], dict[str, Any]]:
    """A layer worth the engine's while before or behind the strange part: y = relu(x w), [n, 8] -> [n, 8]."""
    return [node("MatMul", [x, f"{y}_w"], [f"{y}_m"]), node("Relu", [f"{y}_m"], [y])], {f"{y}_w": floats(8, 8)}


def branch(name: str, *nodes: NodeProto, out: str) -> Any:
    return helper.make_graph(list(nodes), name, [], [helper.make_empty_tensor_value_info(out)])


def if_with_captures() -> Model:
    before, w = layer("x", "h")
    after, w2 = layer("i", "y")
    then = branch("then", node("Mul", ["h", "k"], ["t"]), out="t")
    other = branch("else", node("Sub", ["h", "x"], ["e"]), out="e")
    check = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"])]
    fork = node("If", ["c"], ["i"], then_branch=then, else_branch=other)
    constants = w | w2 | {"k": np.float32(3), "zero": np.float32(0)}
    model = build([*before, *check, fork, *after], [info("x", F, ["n", 8])], [info("y", F, ["n", 8])], constants)
    return model, {"x": floats(3, 8)}


def nested_if() -> Model:
    inner = node(
        "If", ["d"], ["r"],
        then_branch=branch("tt", node("Add", ["h", "a"], ["u"]), out="u"),
        else_branch=branch("te", node("Identity", ["x"], ["v"]), out="v"),
    )  # fmt: skip
    then = branch("then", node("Neg", ["x"], ["a"]), inner, out="r")
    other = branch("else", node("Identity", ["h"], ["e"]), out="e")
    before, w = layer("x", "h")
    nodes = [*before, node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    inputs = [info("x", F, [2, 8]), info("c", TensorProto.BOOL, []), info("d", TensorProto.BOOL, [])]
    model = build(nodes, inputs, [info("y", F, [2, 8])], w)
    return model, {"x": floats(2, 8), "c": np.array(True), "d": np.array(True)}


def loop_as_a_recurrence() -> Model:
    """h = tanh(x[i] + h u) for every i, as Keras' exporter writes it."""
    body = helper.make_graph(
        [
            node("Gather", ["x", "i"], ["xi"], axis=0),
            node("MatMul", ["h0", "u"], ["hu"]),
            node("Add", ["xi", "hu"], ["sum"]),
            node("Tanh", ["sum"], ["h1"]),
            node("Identity", ["c0"], ["c1"]),
            node("Identity", ["h1"], ["out"]),
        ],
        "body",
        [info("i", N, []), info("c0", TensorProto.BOOL, []), info("h0", F, [1, 8])],
        [info("c1", TensorProto.BOOL, []), info("h1", F, [1, 8]), info("out", F, [1, 8])],
    )
    after, w = layer("last", "y")
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
        node("Loop", ["n", "", "start"], ["last", "all"], body=body), *after,
    ]  # fmt: skip
    constants = w | {"zero": np.int64(0), "start": np.zeros((1, 8), np.float32), "u": floats(8, 8)}
    model = build(nodes, [info("x", F, ["t", 1, 8])], [info("y", F, [1, 8]), info("all", F, ["t", 1, 8])], constants)
    return model, {"x": floats(5, 1, 8)}


def scan() -> Model:
    body = helper.make_graph(
        [node("Add", ["a", "v"], ["b"]), node("Mul", ["b", "k"], ["o"])], "body",
        [info("a", F, [8]), info("v", F, [8])], [info("b", F, [8]), info("o", F, [8])],
    )  # fmt: skip
    before, w = layer("x", "h")
    nodes = [*before, node("Scan", ["start", "h"], ["last", "y"], body=body, num_scan_inputs=1)]
    constants = w | {"start": np.zeros(8, np.float32), "k": np.float32(2)}
    model = build(nodes, [info("x", F, [4, 8])], [info("last", F, [8]), info("y", F, [4, 8])], constants)
    return model, {"x": floats(4, 8)}


def sequence() -> Model:
    before, w = layer("x", "h")
    after, w2 = layer("at", "y")
    nodes = [
        *before, node("SequenceConstruct", ["h", "x"], ["q"]), node("SequenceInsert", ["q", "h"], ["q2"]),
        node("SequenceAt", ["q2", "two"], ["at"]), *after, node("SequenceLength", ["q2"], ["len"]),
    ]  # fmt: skip
    model = build(
        nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8]), info("len", N, [])], w | w2 | {"two": np.int64(2)}
    )
    return model, {"x": floats(2, 8)}


def sequence_around_a_layer() -> Model:
    """The sequence is made before the engine's layer and read after it."""
    middle, w = layer("e", "h")
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["q"]), node("SequenceLength", ["q"], ["n"]),
        node("Cast", ["n"], ["f"], to=F), node("Add", ["x", "f"], ["e"]), *middle,
        node("SequenceInsert", ["q", "h"], ["q2"]), node("ConcatFromSequence", ["q2"], ["y"], axis=0),
    ]  # fmt: skip
    return build(nodes, [info("x", F, [2, 8])], [info("y", F, [6, 8])], w), {"x": floats(2, 8)}


def sequence_in_and_out() -> Model:
    q = helper.make_tensor_sequence_value_info("q", F, None)
    r = helper.make_tensor_sequence_value_info("r", F, None)
    before, w = layer("x", "h")
    model = build([*before, node("SequenceInsert", ["q", "h"], ["r"])], [info("x", F, [2, 8]), q], [r], w)
    return model, {"x": floats(2, 8), "q": [floats(1, 8), floats(3)]}


def optional() -> Model:
    before, w = layer("x", "h")
    nodes = [*before, node("Optional", ["h"], ["o"]), node("OptionalGetElement", ["o"], ["g"])]
    after, w2 = layer("g", "y")
    return build([*nodes, *after], [info("x", F, [2, 8])], [info("y", F, [2, 8])], w | w2), {"x": floats(2, 8)}


def linear_classifier() -> Model:
    """scikit-learn's: labels, and a sequence of maps from ZipMap."""
    ml = "ai.onnx.ml"
    nodes = [
        node(
            "LinearClassifier", ["x"], ["label", "scores"], domain=ml, classlabels_ints=[3, 5, 9],
            post_transform="SOFTMAX", coefficients=[float(v) for v in floats(24)], intercepts=[0.1, -0.2, 0.3],
            multi_class=1,
        ),
        node("ZipMap", ["scores"], ["p"], domain=ml, classlabels_int64s=[3, 5, 9]),
    ]  # fmt: skip
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(N, helper.make_tensor_type_proto(F, [])))
    outputs = [info("label", N, ["n"]), helper.make_value_info("p", maps)]
    return build(nodes, [info("x", F, ["n", 8])], outputs, opset=0, domains={ml: 3}), {"x": floats(4, 8)}


def tree_classifier() -> Model:
    ml = "ai.onnx.ml"
    tree = node(
        "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain=ml, classlabels_strings=["no", "yes"],
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[2, 0, 0], nodes_values=[0.1, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0], class_nodeids=[1, 2], class_ids=[0, 1], class_weights=[1.0, 1.0], post_transform="NONE",
    )  # fmt: skip
    zip_map = node("ZipMap", ["scores"], ["p"], domain=ml, classlabels_strings=["no", "yes"])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(S, helper.make_tensor_type_proto(F, [])))
    before, w = layer("u", "x")
    outputs = [info("label", S, ["n"]), helper.make_value_info("p", maps)]
    return build([*before, tree, zip_map], [info("u", F, ["n", 8])], outputs, w, domains={ml: 1}), {"u": floats(6, 8)}


def strings() -> Model:
    normalize = node("StringNormalizer", ["t"], ["s"], stopwords=["The"], locale="C")
    before, w = layer("x", "y")
    words = np.array(["The", "QUICK", "Fox"], object)
    model = build(
        [normalize, *before], [info("t", S, [3]), info("x", F, [1, 8])], [info("s", S, ["k"]), info("y", F, [1, 8])], w
    )
    return model, {"t": words, "x": floats(1, 8)}


def string_constants() -> Model:
    words = helper.make_tensor("words", S, [3], [b"a", b"b", b"c"])
    nodes = [
        node("Constant", [], ["more"], value=helper.make_tensor("v", S, [3], [b"c", b"b", b"a"])),
        node("Equal", ["words", "more"], ["same"]), node("Cast", ["same"], ["f"], to=F),
        node("ReduceSum", ["f"], ["k"], keepdims=0), node("Mul", ["x", "k"], ["z"]),
    ]  # fmt: skip
    after, w = layer("z", "y")
    return build([*nodes, *after], [info("x", F, [2, 8])], [info("y", F, [2, 8])], w, 19, tensors=[words]), {
        "x": floats(2, 8)
    }


def local_function() -> Model:
    body = [node("MatMul", ["a", "b"], ["m"]), node("Softsign", ["m"], ["c"])]
    f = helper.make_function("my.own", "Soft", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    before, w = layer("x", "h")
    nodes = [*before, node("Soft", ["h", "k"], ["y"], domain="my.own")]
    model = build(
        nodes,
        [info("x", F, ["n", 8])],
        [info("y", F, ["n", 8])],
        w | {"k": floats(8, 8)},
        domains={"my.own": 1},
        functions=[f],
    )
    return model, {"x": floats(2, 8)}


def function_with_an_operators_name() -> Model:
    f = helper.make_function("my.own", "Gelu", ["a"], ["c"], [node("Neg", ["a"], ["c"])], [helper.make_opsetid("", 17)])
    before, w = layer("x", "h")
    nodes = [*before, node("Gelu", ["h"], ["y"], domain="my.own")]
    model = build(nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w, domains={"my.own": 1}, functions=[f])
    return model, {"x": floats(2, 8)}


def sparse_initializer() -> Model:
    values = numpy_helper.from_array(np.array([2, -1, 0.5], np.float32), "w")
    at = numpy_helper.from_array(np.array([3, 17, 40], np.int64), "w_at")
    sparse = helper.make_sparse_tensor(values, at, [8, 8])
    before, w = layer("x", "h")
    nodes = [*before, node("MatMul", ["h", "w"], ["y"])]
    return build(nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w, sparse=[sparse]), {"x": floats(2, 8)}


def four_bits(kind: int = TensorProto.INT4) -> Model:
    q = helper.make_tensor("q", kind, [8, 16], rng().integers(0, 8, 128))
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=4), node("MatMul", ["x", "w"], ["y"])]
    scale = {"s": np.abs(floats(2, 16)) + 0.1}
    return build(nodes, [info("x", F, ["n", 8])], [info("y", F, ["n", 16])], scale, 21, tensors=[q]), {
        "x": floats(3, 8)
    }


def float8() -> Model:
    before, w = layer("x", "h")
    nodes = [*before, node("Cast", ["h"], ["e"], to=TensorProto.FLOAT8E4M3FN), node("Cast", ["e"], ["y"], to=F)]
    return build(nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w, 19), {"x": floats(2, 8)}


def bfloat16_between() -> Model:
    before, w = layer("x", "h")
    middle, w2 = layer("z", "g")
    nodes = [
        *before, node("Cast", ["h"], ["b"], to=TensorProto.BFLOAT16), node("Cast", ["b"], ["z"], to=F), *middle,
        node("Cast", ["b"], ["b2"], to=F), node("Add", ["g", "b2"], ["y"]),
    ]  # fmt: skip
    return build(nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w | w2), {"x": floats(2, 8)}


def half_weights() -> Model:
    """Weights in float16, computed with in float32."""
    before, w = layer("x", "h")
    nodes = [*before, node("Cast", ["hw"], ["hf"], to=F), node("MatMul", ["h", "hf"], ["y"])]
    return build(
        nodes, [info("x", F, ["n", 8])], [info("y", F, ["n", 4])], w | {"hw": floats(8, 4).astype(np.float16)}
    ), {"x": floats(2, 8)}


def half_in_and_out() -> Model:
    nodes = [node("Cast", ["x"], ["f"], to=F), *layer("f", "g")[0], node("Cast", ["g"], ["y"], to=H)]
    return build(nodes, [info("x", H, ["n", 8])], [info("y", H, ["n", 8])], layer("f", "g")[1]), {
        "x": floats(2, 8).astype(np.float16)
    }


def half_net(blocks: int = 33, declared: Sequence[Any] = ("n", 3, "h", "w")) -> Model:
    """As PaddleOCR's exports in float16: every convolution in float16, resizes and means in float32 between casts."""
    nodes, constants, x = [node("Cast", ["x"], ["x0"], to=H)], {}, "x0"
    for i in range(blocks):
        constants[f"w{i}"] = (0.3 * floats(3, 3, 3, 3)).astype(np.float16)
        nodes += [
            node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1] * 4), node("Cast", [f"c{i}"], [f"f{i}"], to=F),
            node("Relu", [f"f{i}"], [f"r{i}"]), node("Cast", [f"r{i}"], [f"h{i}"], to=H),
            node("Add", [f"h{i}", x], [f"a{i}"]), node("Clip", [f"a{i}", "lo", "hi"], [f"o{i}"]),
        ]  # fmt: skip
        x = f"o{i}"
    nodes.append(node("Cast", [x], ["y"], to=F))
    constants |= {"lo": np.float16(-4), "hi": np.float16(4)}
    return build(nodes, [info("x", F, declared)], [info("y", F, ["n", 3, "h", "w"])], constants), {
        "x": floats(1, 3, 32, 32)
    }


def other_operators_between_layers() -> Model:
    """Each time a runtime change that pays, more of them than there may be parts."""
    nodes, constants, x = [], {}, "x"
    for i in range(40):
        more, w = layer(x, f"h{i}")
        nodes += [*more, node("CumSum", [f"h{i}", "axis"], [f"s{i}"]), node("Softmax", [f"s{i}"], [f"p{i}"])]
        constants |= w
        x = f"p{i}"
    return build(nodes, [info("x", F, ["n", 8])], [info(x, F, ["n", 8])], constants | {"axis": np.int64(1)}), {
        "x": floats(2, 8)
    }


def result_that_is_constant() -> Model:
    before, w = layer("x", "y")
    nodes = [*before, node("CumSum", ["y", "axis"], ["z"]), node("Add", ["k", "k"], ["two_k"])]
    outputs = [info("z", F, [2, 8]), info("k", F, [3]), info("two_k", F, [3]), info("x", F, [2, 8])]
    return build(nodes, [info("x", F, [2, 8])], outputs, w | {"k": floats(3), "axis": np.int64(1)}), {"x": floats(2, 8)}


def gru_of_a_speech_net() -> Model:
    """A GRU between layers whose time axis is free."""
    before, w = layer("x", "h")
    nodes = [
        *before, node("GRU", ["h", "W", "R"], ["g", "last"], hidden_size=8), node("Squeeze", ["g", "one"], ["q"]),
        node("MatMul", ["q", "out"], ["y"]),
    ]  # fmt: skip
    constants = w | {"W": floats(1, 24, 8), "R": floats(1, 24, 8), "one": np.array([1], np.int64), "out": floats(8, 5)}
    model = build(nodes, [info("x", F, ["t", "b", 8])], [info("y", F, ["t", "b", 5])], constants)
    return model, {"x": floats(6, 2, 8)}


def shape_that_data_decides() -> Model:
    before, w = layer("x", "h")
    after, w2 = layer("rows", "y")
    nodes = [
        *before, node("NonZero", ["h"], ["nz"]), node("Slice", ["nz", "zero", "one", "zero"], ["i2"]),
        node("Squeeze", ["i2", "zero"], ["i"]), node("Gather", ["h", "i"], ["rows"]), *after,
    ]  # fmt: skip
    constants = w | w2 | {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
    return build(nodes, [info("x", F, ["n", 8])], [info("y", F, ["k", 8])], constants), {"x": floats(3, 8)}


def wrong_declared_output() -> Model:
    """A declared result's shape that is not true, as exporters that traced one size leave behind."""
    before, w = layer("x", "h")
    nodes = [*before, node("CumSum", ["h", "axis"], ["s"]), node("MatMul", ["s", "k"], ["y"])]
    return build(
        nodes, [info("x", F, ["n", 8])], [info("y", F, [1, 4])], w | {"axis": np.int64(1), "k": floats(8, 4)}
    ), {"x": floats(3, 8)}


def unsorted() -> Model:
    """ONNX asks for nodes in order; ONNX Runtime does not."""
    nodes, w = layer("x", "h")
    more = [node("CumSum", ["h", "axis"], ["y"])]
    return build(
        [*more, *reversed(nodes)], [info("x", F, [2, 8])], [info("y", F, [2, 8])], w | {"axis": np.int64(1)}
    ), {"x": floats(2, 8)}


def custom_contrib_operator() -> Model:
    before, w = layer("x", "h")
    nodes = [*before, node("BiasGelu", ["h", "b"], ["y"], domain="com.microsoft")]
    model = build(
        nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w | {"b": floats(8)}, domains={"com.microsoft": 1}
    )
    return model, {"x": floats(2, 8)}


def newer_opset() -> Model:
    nodes, w = layer("x", "y")
    return build(nodes, [info("x", F, [2, 8])], [info("y", F, [2, 8])], w, 24), {"x": floats(2, 8)}


def unshaped_input() -> Model:
    nodes, w = layer("x", "h")
    x = info("x", F, None)
    return build(
        [*nodes, node("CumSum", ["h", "axis"], ["y"])], [x], [info("y", F, None)], w | {"axis": np.int64(1)}
    ), {"x": floats(2, 8)}


MODELS: dict[str, Callable[[], Model]] = {
    f.__name__: f
    for f in (
        if_with_captures, nested_if, loop_as_a_recurrence, scan, sequence, sequence_around_a_layer, sequence_in_and_out,
        optional, linear_classifier, tree_classifier, strings, string_constants, local_function,
        function_with_an_operators_name, sparse_initializer, four_bits, float8, bfloat16_between, half_weights,
        half_in_and_out, half_net, other_operators_between_layers, result_that_is_constant, gru_of_a_speech_net,
        shape_that_data_decides, wrong_declared_output, unsorted, custom_contrib_operator, newer_opset, unshaped_input,
    )
}  # fmt: skip
MODELS["four_bits_unsigned"] = lambda: four_bits(TensorProto.UINT4)
