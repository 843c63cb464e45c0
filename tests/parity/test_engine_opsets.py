"""Old opsets: ONNX's own backward-compatibility files, every schema of every claimed operator, ONNX's converter."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, version_converter

from secateur.engine import InferenceSession
from secateur.errors import FormatError, UnsupportedError
from secateur.native import _native

from .engine_graphs import tolerance
from .old_forms import LAST, Call, at, calls, history
from .test_engine_nodes import collect
from .test_engine_random import run_ort

Array = np.ndarray[Any, Any]
OPERATORS = set(_native.supported_operators().split(", "))
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
# What the engine says it does not do, in its own words.
REFUSED = ("supported: rank 3 (1-D) and 4 (2-D)",)


def stored(path: Path) -> Array:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in constants]


def run(model: onnx.ModelProto, feeds: list[Array]) -> list[Array]:
    """The engine's outputs; where it asks for constant inputs, all but the first are."""
    names = [i.name for i in free_inputs(model)]
    try:
        return InferenceSession(model.SerializeToString(), threads=1, fallback=None).run(
            None, dict(zip(names, feeds, strict=True))
        )
    except UnsupportedError as error:
        if "must be constant" not in str(error) or len(feeds) < 2:
            raise
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in zip(names[1:], feeds[1:], strict=True))
    return run(copy, feeds[:1])


def differs(got: list[Array], want: list[Array]) -> bool:
    return any(
        a.shape != b.shape or a.dtype != b.dtype or not np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in zip(got, want, strict=True)
    )


def test_backward_compatibility_files() -> None:
    """ONNX's files of opset 6 to 12: those of claimed operators give the answers stored beside them."""
    ran, refused, wrong = 0, [], []
    for folder in ("simple", "pytorch-operator", "pytorch-converted"):
        for path in sorted((DATA / folder).glob("*/model.onnx")):
            model = onnx.load(path)
            if any(n.op_type not in OPERATORS or n.domain not in ("", "ai.onnx") for n in model.graph.node):
                continue
            for case in sorted(path.parent.glob("test_data_set_*")):
                feeds = [stored(case / f"input_{k}.pb") for k in range(len(free_inputs(model)))]
                want = [stored(case / f"output_{k}.pb") for k in range(len(model.graph.output))]
                try:
                    got = run(model, feeds)
                except UnsupportedError as error:
                    refused.append(str(error))
                    continue
                if differs(got, want):
                    wrong.append(f"{path.parent.name}: {got} instead of {want}")
                ran += 1
    assert not wrong, "\n".join(wrong)
    assert ran >= 110
    assert all(any(reason in text for reason in REFUSED) for text in refused), refused


@pytest.mark.parametrize("name", sorted(p.stem for p in (DATA / "light").glob("*.onnx")))
def test_light_networks(name: str) -> None:
    """Whole networks of opset 9, their weights made by ConstantOfShape: the stored answer."""
    model = onnx.load(DATA / "light" / f"{name}.onnx")
    (given,) = free_inputs(model)
    dims = [d.dim_value for d in given.type.tensor_type.shape.dim]
    x = (np.arange(np.prod(dims)).reshape(dims) / np.prod(dims)).astype(np.float32)  # as ONNX's own runner feeds
    got = InferenceSession(model.SerializeToString(), threads=1, fallback=None).run(None, {given.name: x})
    np.testing.assert_allclose(got[0], stored(DATA / "light" / f"{name}_output_0.pb"), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "inception_v2"])
def test_light_networks_with_weights_of_their_own(name: str) -> None:
    """The same structures with random weights, where a wrong channel shows: ONNX Runtime's answer."""
    model = onnx.load(DATA / "light" / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        dims = shapes[node.input[0]].tolist()
        values = (
            rng.uniform(0.5, 1.5, dims)
            if len(dims) == 1
            else rng.standard_normal(dims) * np.sqrt(2 / np.prod(dims[1:]))
        )
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 4  # initializers need not be inputs
    data = model.SerializeToString()
    (given,) = free_inputs(model)
    feeds = {
        given.name: rng.standard_normal([d.dim_value for d in given.type.tensor_type.shape.dim]).astype(np.float32)
    }
    want = run_ort(data, feeds)
    (got,) = InferenceSession(data, threads=1, fallback=None).run(None, feeds)
    (most,) = tolerance(run_ort, data, feeds, want)
    assert np.max(np.abs(got - want[0])) <= most


# Claimed operators without a call in the table.
ELSEWHERE = {
    "ImageScaler": "no schema: an experiment of opset 1 that was taken out; test_old_forms.py",
    "SimplifiedLayerNormalization": "no schema: ONNX Runtime's own; test_engine_contrib.py",
    "Swish": "opset 24; test_engine_patterns.py",
    "Upsample": "no longer an operator; test_old_forms.py",
}
CALLS = calls()


def newest_answer(call: Call) -> list[Array]:
    """ONNX Runtime's, of the call at opset 23 with constants only."""
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(call.inputs)]
    constants = [numpy_helper.from_array(a, n) for n, a in zip(names, call.inputs, strict=True) if a is not None]
    node = helper.make_node(call.op, names, [f"o{k}" for k in range(call.outputs)], **call.attributes)
    outputs = [helper.make_empty_tensor_value_info(o) for o in node.output]
    graph = helper.make_graph([node], "call", [], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", LAST)], ir_version=10)
    return run_ort(model.SerializeToString(), {})


def test_every_claimed_operator_has_a_call() -> None:
    assert OPERATORS - set(CALLS) == set(ELSEWHERE)


@pytest.mark.parametrize("op", sorted(CALLS))
def test_every_schema_of_an_operator(op: str) -> None:
    """A call in the words of each schema, at its first and last opset, computes what it does in the newest words."""
    want = newest_answer(CALLS[op])
    schemas = [s for s in history(op) if not s.deprecated]
    for k, schema in enumerate(schemas):
        last = schemas[k + 1].since_version - 1 if k + 1 < len(schemas) else LAST
        for opset in sorted({schema.since_version, last}):
            call = at(CALLS[op], schema)
            for ir_version in (3, 10) if opset < 9 else (10,):
                model = call.model(opset, want, ir_version)
                got = InferenceSession(model, threads=1, fallback=None).run(None, call.feeds)
                assert not differs(got, want), f"{op}, opset {opset}: {got} instead of {want}"


def test_node_cases_brought_to_old_opsets() -> None:
    """ONNX's node cases as its converter writes them at opsets 7 and 10: ONNX Runtime's answers.

    Not the published ones: the converter lets the meaning of some operators change (Softmax before 13).
    """
    ran, wrong = 0, []
    for case in collect():
        feeds = [np.asarray(a) for a in case.data_sets[0][0]]
        for opset in (7, 10):
            try:
                model = version_converter.convert_version(case.model, opset)
                onnx.checker.check_model(model)
                want = run_ort(
                    model.SerializeToString(), dict(zip([i.name for i in model.graph.input], feeds, strict=True))
                )
                got = run(model, feeds)
            except Exception as error:
                # What neither the converter nor a runtime does; the engine's refusals: test_engine_nodes.py.
                if isinstance(error, FormatError):
                    wrong.append(f"{case.name}, opset {opset}: {error}")
                continue
            if differs(got, want):
                wrong.append(f"{case.name}, opset {opset}: {got} instead of {want}")
            ran += 1
    assert not wrong, "\n".join(wrong)
    print(ran)
    assert ran >= 100
