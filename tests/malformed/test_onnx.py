"""Broken ONNX files: one test per way to be malformed, then mutations. Only clear errors may come out."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.engine import InferenceSession
from secateur.errors import EnvironmentFailure, FormatError, UnsupportedError, UsageError

# --- a protobuf writer of ten lines, to say exactly which byte is wrong ---------------------------------------------


def varint(n: int) -> bytes:
    out = b""
    n &= 2**64 - 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def dims(*sizes: int) -> bytes:
    return field(2, b"".join(field(1, field(1, s)) for s in sizes))


def info(name: str, *sizes: int, dtype: int = 1) -> bytes:
    return field(1, name.encode()) + field(2, field(1, field(1, dtype) + dims(*sizes)))


def tensor(name: str, sizes: tuple[int, ...], raw: bytes | None = b"", dtype: int = 1, extra: bytes = b"") -> bytes:
    body = b"".join(field(1, s) for s in sizes) + field(2, dtype) + field(8, name.encode()) + extra
    return body if raw is None else body + field(9, raw)


def node(op: str, inputs: list[str], outputs: list[str], extra: bytes = b"", name: str = "the_node") -> bytes:
    body = b"".join(field(1, i.encode()) for i in inputs) + b"".join(field(2, o.encode()) for o in outputs)
    return body + field(3, name.encode()) + field(4, op.encode()) + extra


def graph(*nodes: bytes, tensors: tuple[bytes, ...] = (), extra: bytes = b"") -> bytes:
    body = b"".join(field(1, n) for n in nodes) + field(2, b"g") + b"".join(field(5, t) for t in tensors) + extra
    return body + field(11, info("x", 1, 4)) + field(12, info("y", 1, 4))


def model(body: bytes, extra: bytes = b"", opset: int = 17) -> bytes:
    return field(1, 8) + field(8, field(2, opset)) + extra + field(7, body)


RELU = node("Relu", ["x"], ["y"])


def load(data: bytes) -> InferenceSession:
    return InferenceSession(data, threads=1, fallback=None)


def test_the_writer_writes_what_onnx_reads() -> None:
    x = np.array([[-1, 2, -3, 4]], np.float32)
    data = model(graph(RELU))
    onnx.checker.check_model(onnx.load_from_string(data))
    assert np.array_equal(load(data).run(None, {"x": x})[0], np.maximum(x, 0))


def test_nodes_out_of_order_are_sorted() -> None:
    """ONNX asks for nodes behind what they read; ONNX Runtime runs them anyway, and so do we."""
    data = model(graph(node("Neg", ["h"], ["y"]), node("Relu", ["x"], ["h"])))
    x = np.array([[-1, 2, -3, 4]], np.float32)
    assert np.array_equal(load(data).run(None, {"x": x})[0], -np.maximum(x, 0))


# --- damaged -----------------------------------------------------------------------------------------------------

ADD_W = node("Add", ["x", "w"], ["y"])
F4 = struct.pack("<4f", 1, 2, 3, 4)


def sequences(depth: int) -> bytes:
    """A sequence of sequences and so on, as a type."""
    inner = b""
    for _ in range(depth):
        inner = field(4, field(1, inner))
    return inner


DAMAGED = {
    "empty file": (b"", "empty"),
    "not protobuf": (b"\x89PNG\r\n\x1a\n" + bytes(40), "ONNX"),
    "text": (b"hello world, this is no model at all", "ONNX"),
    "zeros": (bytes(64), "field number"),
    "no graph": (field(1, 8) + field(8, field(2, 17)), "no graph"),
    "no IR version": (field(8, field(2, 17)) + field(7, graph(RELU)), "IR version"),
    "no opset": (field(1, 8) + field(7, graph(RELU)), "opset"),
    "two graphs": (model(graph(RELU), field(7, graph(RELU))), "second graph"),
    "length past the end": (model(graph(RELU))[:-3], "left"),
    "varint of eleven bytes": (b"\x08" + b"\xff" * 11, "64 bits"),
    "varint cut off": (b"\x08\xff", "ends inside"),
    "group wire type": (b"\x0b" + bytes(8), "wire type"),
    "wire type of a known field": (model(graph(RELU)).replace(b"\x08\x08", b"\x0d\x08\x00\x00\x00", 1), "wire type"),
    "dims and data disagree": (model(graph(ADD_W, tensors=(tensor("w", (5,), F4),))), "needs 20"),
    "dims overflow": (model(graph(ADD_W, tensors=(tensor("w", (2**40, 2**40), F4),))), "overflow"),
    "dims huge and empty": (model(graph(ADD_W, tensors=(tensor("w", (2**46,), b"", dtype=2),))), "needs"),
    "negative dim": (model(graph(ADD_W, tensors=(tensor("w", (-4,), F4),))), "negative"),
    "sixty-five dims": (model(graph(ADD_W, tensors=(tensor("w", (1,) * 65, F4[:4]),))), "65 dims"),
    "raw and typed data": (
        model(graph(ADD_W, tensors=(tensor("w", (4,), F4, extra=field(4, F4)),))),
        "both raw and typed",
    ),
    "typed data of another type": (
        model(graph(ADD_W, tensors=(tensor("w", (1,), None, extra=field(7, b"\x01")),))),
        "field that is not for float32",
    ),
    "half a float": (model(graph(ADD_W, tensors=(tensor("w", (1,), None, extra=field(4, b"abc")),))), "whole number"),
    "int8 value of 300": (
        model(graph(ADD_W, tensors=(tensor("w", (1,), None, dtype=3, extra=field(5, varint(300))),))),
        "does not fit int8",
    ),
    "sparse initializer without a name": (model(graph(RELU, extra=field(15, b""))), "no name"),
    "value of a subgraph that nobody makes": (
        model(
            graph(node("If", ["x"], ["y"], field(5, field(1, b"b") + field(6, graph(node("Relu", ["nope"], ["y"]))))))
        ),
        "reads 'nope'",
    ),
    "types within one another": (
        model(graph(RELU, extra=field(11, field(1, b"s") + field(2, sequences(40))))),
        "nested deeper",
    ),
    "undefined input": (model(graph(node("Relu", ["nope"], ["y"]))), "reads 'nope'"),
    "values made of one another": (
        model(graph(node("Relu", ["h"], ["y"], name="late"), node("Relu", ["y"], ["h"]))),
        "'late' reads 'h'",
    ),
    "value made twice": (model(graph(RELU, RELU)), "second time"),
    "output that nobody makes": (model(graph(node("Relu", ["x"], ["z"]))), "'y' is not computed"),
    "initializer twice": (model(graph(ADD_W, tensors=(tensor("w", (4,), F4),) * 2)), "defined twice"),
    "input twice": (model(graph(RELU, extra=field(11, info("x", 1, 4)))), "appears twice"),
    "name that is not UTF-8": (model(graph(RELU, extra=field(11, field(1, b"\xff\xfe")))), "UTF-8"),
    "name with a surrogate": (model(graph(RELU, extra=field(11, field(1, b"\xed\xa0\x80")))), "UTF-8"),
    "negative input size": (model(graph(RELU, extra=field(11, info("z", -7)))), "negative"),
    "attribute without name": (model(graph(node("Relu", ["x"], ["y"], field(5, field(3, 1))))), "without a name"),
    "attribute twice": (
        model(graph(node("Relu", ["x"], ["y"], field(5, field(1, b"a") + field(3, 1)) * 2))),
        "attribute twice",
    ),
    "attribute of a wrong kind": (
        model(graph(node("LeakyRelu", ["x"], ["y"], field(5, field(1, b"alpha") + field(3, 1) + field(20, 2))))),
        "'alpha' is not a float",
    ),
    "operator without a name": (model(graph(node("", ["x"], ["y"]))), "no operator type"),
    "too many operands": (
        model(graph(node("Conv", ["x", "w", "w", "x"], ["y"]), tensors=(tensor("w", (4,), F4),))),
        "4 inputs",
    ),
    "missing operand": (model(graph(node("Gemm", ["x"], ["y"]))), "input 1 is missing"),
}


@pytest.mark.parametrize("way", sorted(DAMAGED))
def test_damaged(way: str) -> None:
    data, words = DAMAGED[way]
    with pytest.raises(FormatError, match="(?s)" + words.replace("(", r"\(")) as error:
        load(data)
    offset = error.value.offset
    assert offset is None or 0 <= offset <= len(data)


# --- valid, and not for this engine ------------------------------------------------------------------------------


def attribute(number: int, payload: bytes) -> bytes:
    return field(5, field(1, b"body") + field(number, payload))


EXTERNAL = tensor("w", (4,), None, extra=field(13, field(1, b"location")) + field(14, 1))


def nested(depth: int) -> bytes:
    """A subgraph in a subgraph and so on."""
    inner = RELU
    for _ in range(depth):
        inner = node("If", ["x"], ["y"], attribute(6, graph(inner)))
    return model(graph(inner))


UNSUPPORTED = {
    "subgraphs within one another": (nested(40), "nested deeper"),
    "unknown operator": (model(graph(node("NonZero", ["x"], ["y"]))), "the_node.*NonZero.*supported: Abs, Add"),
    "other domain": (model(graph(node("Gelu", ["x"], ["y"], field(7, b"com.acme")))), "com.acme.Gelu"),
    "no opset": (model(graph(RELU), opset=0), "opset 0"),
    "new opset": (model(graph(RELU), opset=99), "opset 99"),
    "subgraph": (model(graph(node("If", ["x"], ["y"], attribute(6, graph(RELU))))), "the_node.*operator If is not"),
    "list of subgraphs": (model(graph(node("If", ["x"], ["y"], attribute(11, graph(RELU))))), "operator If is not"),
    "function": (
        model(graph(node("F", ["x"], ["y"], field(7, b"me"))), field(25, field(1, b"F") + field(10, b"me"))),
        "operator me.F is not",
    ),
    "function called as an operator": (model(graph(RELU), field(25, field(1, b"Relu"))), "Relu is a function of"),
    "external data": (
        model(graph(ADD_W, tensors=(EXTERNAL,))),
        "'w'.*external",
    ),
    "sparse initializer": (model(graph(ADD_W, extra=field(15, field(1, tensor("w", (1,), F4[:4]))))), "'w' is a spar"),
    "external data in a subgraph": (
        model(graph(node("If", ["x"], ["y"], attribute(6, graph(RELU, tensors=(EXTERNAL,)))))),
        "'w'.*external",
    ),
    "external data in a function": (
        model(graph(RELU), field(25, field(1, b"F") + field(7, node("Constant", [], ["c"], attribute(5, EXTERNAL))))),
        "'w'.*external",
    ),
    "external data in a sparse tensor": (model(graph(RELU, extra=field(15, field(2, EXTERNAL)))), "'w'.*external"),
    "string tensor": (model(graph(ADD_W, tensors=(tensor("w", (1,), None, dtype=8, extra=field(6, b"s")),))), "string"),
    "float8": (model(graph(ADD_W, tensors=(tensor("w", (4,), b"abcd", dtype=17),))), "float8e4m3fn"),
    "a type from the future": (model(graph(ADD_W, tensors=(tensor("w", (4,), b"abcd", dtype=99),))), "data type 99"),
    "sequence input": (
        model(graph(RELU, extra=field(11, field(1, b"s") + field(2, field(4, b""))))),
        "'s' is a seq",
    ),
    "attribute that is a type": (model(graph(node("Relu", ["x"], ["y"], attribute(14, b"")))), "kind that is not"),
    "attribute reference": (model(graph(node("Relu", ["x"], ["y"], attribute(21, b"p")))), "kind that is not"),
    "constant of a terabyte": (
        model(
            graph(
                node("ConstantOfShape", ["s"], ["h"], name="bomb"),
                node("Add", ["x", "h"], ["y"]),
                tensors=(tensor("s", (1,), struct.pack("<q", 2**38), dtype=7),),
            )
        ),
        "bomb.*constant of",
    ),
    "constants of a gigabyte and more together": (
        model(
            graph(
                node("ConstantOfShape", ["s"], ["h0"], name="half"),
                node("ConstantOfShape", ["s"], ["h1"], name="bomb"),
                node("Add", ["x", "h0"], ["y0"]),
                node("Add", ["y0", "h1"], ["y"]),
                tensors=(tensor("s", (1,), struct.pack("<q", 150_000_000), dtype=7),),
            )
        ),
        "bomb.*constants of 1200000000 bytes",
    ),
}  # fmt: skip


def test_the_words_of_the_passes_are_not_the_files() -> None:
    """Attributes starting with '_' mean fused work inside; in a file they mean nothing."""
    x = np.array([[-1, 2, -3, 4]], np.float32)
    words = b"".join(field(5, field(1, w) + field(3, 1) + field(20, 2)) for w in (b"_pool", b"_spatial", b"_layer"))
    data = model(graph(node("Relu", ["x"], ["y"], words)))
    assert np.array_equal(load(data).run(None, {"x": x})[0], np.maximum(x, 0))


@pytest.mark.parametrize("way", sorted(UNSUPPORTED))
def test_unsupported(way: str) -> None:
    data, words = UNSUPPORTED[way]
    with pytest.raises(UnsupportedError, match="(?s)" + words):
        load(data)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(model(graph(RELU))[:-3])
    with pytest.raises(FormatError, match=r"cut\.onnx: ONNX"):
        InferenceSession(path)
    with pytest.raises(UsageError, match="no such file"):
        InferenceSession(tmp_path / "missing.onnx")
    with pytest.raises(UsageError, match="folder"):
        InferenceSession(tmp_path)


def test_every_truncation_is_an_error() -> None:
    data = model(graph(ADD_W, tensors=(tensor("w", (4,), F4),)))
    for n in range(len(data)):
        with pytest.raises((FormatError, UnsupportedError)):
            load(data[:n])


# --- mutations ---------------------------------------------------------------------------------------------------


def seeds_models() -> list[bytes]:
    rng = np.random.default_rng(0)

    def const(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    conv_net = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "b1", "b1", "b1", "v"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["d"], ["e"], axis=1),
        helper.make_node("Gemm", ["e", "w2"], ["y"], transB=1),
    ]
    tensors = [const("w1", 3, 2, 3, 3), const("b1", 3), const("w2", 5, 48)]
    tensors.append(numpy_helper.from_array(np.ones(3, np.float32), "v"))
    shapes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["g"], axis=0),
        helper.make_node("Unsqueeze", ["g", "axes"], ["u"]),
        helper.make_node("Concat", ["u", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["r"]),
        helper.make_node("Slice", ["r", "axes", "two", "one"], ["sl"]),
        helper.make_node("Pad", ["sl", "pads"], ["p"]),
        helper.make_node("Transpose", ["p"], ["q"], perm=[1, 0]),
        helper.make_node("Softmax", ["q"], ["sm"], axis=0),
        helper.make_node("ReduceMean", ["sm"], ["y"], axes=[0], keepdims=0),
    ]
    ints = {"zero": 0, "axes": [0], "rest": [-1], "two": [2**40], "one": [1], "pads": [0, 1, 0, 2]}
    more = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in ints.items()]
    nets = [helper.make_graph(conv_net, "g", [x], [y], tensors), helper.make_graph(shapes, "g", [x], [y], more)]
    return [
        helper.make_model(g, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
        for g in nets
    ]


def fuzz(seed: int, seconds: float) -> int:
    """Mutates, loads, and runs what still loads. Returns the number of mutants; anything unexpected raises."""
    import resource
    import time

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    rng = np.random.default_rng(seed)
    models = seeds_models()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = bytearray(models[count % len(models)])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(data)))
            kind = rng.integers(0, 5)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                data[at] = int(rng.integers(0, 256))
            elif kind == 2:
                del data[at : at + int(rng.integers(1, 9))]
            elif kind == 3:
                data[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
            else:
                other = int(rng.integers(0, len(data)))
                data[at : at + 8] = data[other : other + 8]
            if not data:
                data = bytearray(1)
        count += 1
        try:
            session = load(bytes(data))
            feeds = {}
            for i in session.get_inputs():
                shape = [d if isinstance(d, int) else 2 for d in i.shape]
                if np.prod(shape, dtype=float) > 1e5:
                    raise UnsupportedError("too large to try")
                kind = i.type[7:-1].replace("float16", "half")
                feeds[i.name] = np.zeros(shape, {"float": "f4", "double": "f8", "half": "f2"}.get(kind, kind))
            if any(np.prod(row["output"], dtype=float) > 1e5 for row in session.explain(batch=2, repeats=0)):
                continue  # a large padding is allowed, and slow
            session.run(None, feeds)
        except (FormatError, UnsupportedError, UsageError, EnvironmentFailure):
            pass
        except Exception as error:
            raise AssertionError(f"mutant {count} of seed {seed}: {type(error).__name__}: {error}") from error
    return count


def test_mutations_raise_only_clear_errors() -> None:
    """In a process of its own, so that a crash is a failure and not the end of the test run."""
    root = Path(__file__).parents[2]
    code = "import sys; sys.path.insert(0, 'tests'); from malformed.test_onnx import fuzz; print(fuzz(1, 8.0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 1000


@pytest.mark.parametrize("op", ["Add", "Conv", "Div", "Gemm", "MatMul", "Mul", "Pow", "Relu", "Softmax", "Sub"])
def test_operands_that_passes_read_must_be_there(op: str) -> None:
    """Inside an attention and a GELU, where passes look for them."""
    names = ["x"] if op not in ("Relu", "Softmax") else []
    nodes = [
        node("MatMul", ["x", "x"], ["a"], name="first"),
        node("Softmax", ["a"], ["b"], name="second"),
        node("MatMul", ["b", "x"], ["c"], name="third"),
        node(op, names, ["d"]),
        node("Erf", ["d"], ["e"], name="fourth"),
        node("Add", ["c", "e"], ["y"], name="fifth"),
    ]
    with pytest.raises(FormatError, match=f"'the_node' \\({op}\\): input {len(names)} is missing"):
        InferenceSession(model(graph(*nodes)), fallback=None)


def test_nodes_without_outputs_are_dropped() -> None:
    InferenceSession(model(graph(node("Softmax", ["x"], []), node("Relu", ["x"], ["y"]))))


@pytest.mark.parametrize("ops", [("Relu",), ("Identity",), ("Erf", "Add", "Mul")])
def test_a_chain_of_100_000_nodes_loads_and_runs(ops: tuple[str, ...]) -> None:
    """A hundred thousand nodes are a file of a few megabytes: loading it must not compare each node with each.

    That passes take work in proportion is counted in engine/graph/passes/rewriter_test.cc; here such a file just runs.
    """
    count = 100_000
    nodes = []
    for i in range(count):
        value = f"v{i}" if i else "x"
        operands = [value, "x"] if ops[i % len(ops)] in ("Add", "Mul") else [value]
        nodes.append(node(ops[i % len(ops)], operands, [f"v{i + 1}" if i + 1 < count else "y"]))
    session = load(model(graph(*nodes)))
    (y,) = session.run(None, {"x": np.zeros((1, 4), np.float32)})
    assert np.array_equal(y, np.zeros((1, 4), np.float32))
