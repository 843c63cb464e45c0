"""Damaged models opened with the fallback on: cut, handed over, run; in a process of its own that must survive."""

import random
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MUTANTS = 1000
NUMBERS = (0, 1, -1, 2, 3, 5, 8, -3, 64, 7_600_000, 2**31, -(2**63), 2**63 - 1)
OTHERS = (
    "Relu",
    "Conv",
    "MatMul",
    "Add",
    "Transpose",
    "Det",
    "Cumsum",
    "NonZero",
    "Flatten",
    "Softmax",
    "QuantizeLinear",
)


def model(
    nodes: list[onnx.NodeProto], shape: list[Any], constants: dict[str, np.ndarray], outputs: list[str]
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    outs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    weights = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], outs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def seeds() -> list[onnx.ModelProto]:
    rng = np.random.default_rng(3)

    def w(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    node = helper.make_node
    mixed = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1], name="c1"),
        node("Sinh", ["a"], ["b"], name="odd"),
        node("Conv", ["b", "w2", "bias"], ["c"], name="c2"),
        node("Constant", [], ["axis"], value_int=1),
        node("CumSum", ["c", "axis"], ["d"], name="sum"),
        node("GlobalAveragePool", ["d"], ["e"], name="p"),
        node("Flatten", ["e"], ["f"], name="f"),
        node("Gemm", ["f", "w3"], ["y"], transB=1, name="g"),
    ]
    plain = [
        node("MatMul", ["x", "w"], ["a"], name="m"),
        node("Softmax", ["a"], ["s"], name="s"),
        node("Gather", ["s", "i"], ["y"], axis=1, name="pick"),
    ]
    shapes = [
        node("Sinh", ["w"], ["v"], name="folded"),
        node("Reshape", ["x", "shape"], ["r"], name="r"),
        node("MatMul", ["r", "v"], ["m"], name="m"),
        node("NonZero", ["m"], ["n"], name="where"),
        node("Cast", ["n"], ["y"], to=1, name="cast"),
    ]
    return [
        model(mixed, ["n", 2, 5, 5], {"w1": w(4, 2, 3, 3), "w2": w(3, 4, 1, 1), "bias": w(3), "w3": w(2, 3)}, ["y"]),
        model(plain, ["n", 6], {"w": w(6, 4), "i": np.array([3, 0])}, ["y"]),
        model(shapes, ["n", 6], {"w": w(3, 4), "shape": np.array([-1, 3])}, ["y", "m"]),
    ]


def alter(values: list[int], rng: random.Random) -> list[int]:
    values = list(values)
    how = rng.randrange(3)
    if how == 0 or not values:
        values.insert(rng.randrange(len(values) + 1), rng.choice(NUMBERS))
    elif how == 1:
        values.pop(rng.randrange(len(values)))
    else:
        values[rng.randrange(len(values))] = rng.choice(NUMBERS)
    return values


def mutate(m: onnx.ModelProto, rng: random.Random) -> None:
    g = m.graph
    n = rng.choice(g.node)
    how = rng.randrange(7)
    if how == 0:
        t = rng.choice(g.initializer)
        a = numpy_helper.to_array(t)
        dims = [d for d in alter(list(a.shape), rng) if 0 <= d < 100]
        t.CopyFrom(numpy_helper.from_array(np.resize(a, dims), t.name))
    elif how == 1:
        dims = g.input[0].type.tensor_type.shape.dim
        rng.choice(dims).dim_value = rng.choice(NUMBERS[:9])
    elif how == 2 and n.attribute:
        a = rng.choice(n.attribute)
        if a.ints:
            ints = alter(list(a.ints), rng)
            del a.ints[:]
            a.ints.extend(ints)
        else:
            a.i = rng.choice(NUMBERS)
    elif how == 3:
        n.op_type = rng.choice(OTHERS)
    elif how == 4 and n.input:
        n.input[rng.randrange(len(n.input))] = rng.choice([*(t.name for t in g.initializer), "x", ""])
    elif how == 5:
        m.opset_import[0].version = rng.randrange(1, 26)
    else:
        n.attribute.append(helper.make_attribute(rng.choice(["axis", "pads", "group", "strides"]), alter([1, 1], rng)))


def feeds(session: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        i.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in i.shape]).astype(np.float32)
        for i in session.get_inputs()
    }


def child(first: int, last: int) -> None:
    import resource
    import signal

    from secateur.engine import InferenceSession
    from secateur.errors import SecateurError

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    warnings.simplefilter("ignore")
    ran = 0
    for number in range(first, last):
        print(f"mutant {number}", flush=True)
        signal.alarm(60)
        rng = random.Random(number)
        m = rng.choice(seeds())
        for _ in range(rng.randrange(1, 4)):
            mutate(m, rng)
        try:
            session = InferenceSession(m.SerializeToString(), threads=1, max_nbytes=2**26, max_work=1e8)
            session.run(None, feeds(session, np.random.default_rng(number)))
            ran += 1
        except SecateurError:
            pass
    print(f"{ran} ran", flush=True)


def test_damaged_models_with_the_fallback() -> None:
    ended = subprocess.run(
        [sys.executable, __file__, "0", str(MUTANTS)], capture_output=True, text=True, timeout=400, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-40:]}\n{ended.stderr[-2000:]}"
    ran = int(ended.stdout.split("\n")[-2].split()[0])
    assert ran > MUTANTS // 20  # else the mutations are too coarse to reach a run


if __name__ == "__main__":
    child(int(sys.argv[1]), int(sys.argv[2]))
