"""ONNX's own operator tests, for every operator the engine claims."""

import importlib
import pkgutil
import warnings
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from secateur.engine import InferenceSession
from secateur.errors import UnsupportedError
from secateur.native import _native

LAST_OPSET = 23
OPERATORS = set(_native.supported_operators().split(", "))

# What the engine says it does not do, in its own words. Anything else must run.
REFUSED = (
    "without fmod",  # Mod of floats
    "supported: float32",  # integer and half arithmetic
    "supported: rank 3 (1-D) and 4 (2-D)",
    "ONNX data type",  # float8, int4, ...
    "cast from",
    "training_mode",
    "the mask output",
    "the Indices output",
    "operands have dtypes",
    "is a sequence, map, optional or sparse tensor",
    "blocked quantization",
    "quantized dtype",
    "mode '",
    "supported: a scalar or one axis",
    "string",
    "more than one output",
    "over no elements",
    "past keys and values",
    "softcap",
    "a local window",
    "antialias",
    "keep_aspect_ratio_policy",
    "coordinate_transformation_mode",
    "without elements",
    "that broadcast",
    "the first",  # present keys and values, raw scores
    "per group, supported: per channel",
    "must be constant",  # shapes that are themselves computed from an input's values
)


def collect() -> list[Any]:
    """The cases of the modules named after a claimed operator (all of onnx's modules would take half a minute)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node as room

        wanted = {op.lower() for op in OPERATORS} | {"batchnorm", "rangeop"}
        for module in pkgutil.iter_modules(room.__path__):
            if module.name.replace("_", "") in wanted:
                importlib.import_module(f"{room.__name__}.{module.name}")
        found = list(room._NodeTestCases)
    return [c for c in found if all(n.op_type in OPERATORS and not n.domain for n in c.model.graph.node)]


def prepared(
    model: onnx.ModelProto, feeds: list[np.ndarray], free: int, narrow: bool
) -> tuple[bytes, dict[str, np.ndarray]]:
    """The case at an opset the engine reads; inputs after the first `free` become initializers, as exporters write.

    `narrow`: float64 becomes float32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for opset in copy.opset_import:
        # Later versions of these operators only add element types that the engine refuses anyway.
        opset.version = min(opset.version, LAST_OPSET)
    named = {i.name: a for i, a in zip(copy.graph.input, feeds, strict=True)}
    if narrow:
        named = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in named.items()}
        for value in (*copy.graph.input, *copy.graph.output):
            kind = value.type.tensor_type
            kind.elem_type = TensorProto.FLOAT if kind.elem_type == TensorProto.DOUBLE else kind.elem_type
    constants = [i.name for i in copy.graph.input[free:]]
    copy.graph.initializer.extend(numpy_helper.from_array(named.pop(name), name) for name in constants)
    del copy.graph.input[free:]
    return copy.SerializeToString(), named


def run(case: Any, feeds: list[np.ndarray]) -> list[np.ndarray]:
    """The engine's outputs; with fewer inputs that are not constant, then without float64, where it asks for that."""
    narrow = False
    for free in (len(feeds), 1, 0):
        if free > len(feeds):
            continue
        for _ in range(2):
            try:
                model, named = prepared(case.model, feeds, free, narrow)
                return InferenceSession(model, threads=1, fallback=None).run(None, named)
            except UnsupportedError as error:
                refused = error
                if narrow or "float64" not in str(error):
                    break
                narrow = True
        if "must be constant" not in str(refused):
            break
    raise refused


# Claimed operators of which ONNX has no case that the engine takes, and what tests them here.
ELSEWHERE = {
    "ImageScaler": "an experiment that ONNX took out again: test_old_forms.py",
    "SimplifiedLayerNormalization": "ONNX Runtime's own, written into the default domain: test_engine_contrib.py",
}


def test_onnx_node_cases() -> None:
    """Every case of a claimed operator runs and is right, or is refused in known words; every operator has one."""
    cases = collect()
    assert len(cases) > 850
    passed, refused, wrong = 0, [], []
    ran: set[str] = set()
    for case in cases:
        for given, answers in case.data_sets:
            if not all(isinstance(a, np.ndarray | np.generic) for a in (*given, *answers)):
                continue  # sequences and optionals
            feeds, want = ([np.asarray(a) for a in values] for values in (given, answers))
            try:
                got = run(case, feeds)
            except UnsupportedError as error:
                refused.append(case.name)
                if not any(reason in str(error) for reason in REFUSED):
                    wrong.append(f"{case.name}: {error}")
                continue
            except Exception as error:
                wrong.append(f"{case.name}: {type(error).__name__}: {error}")
                continue
            for a, exact in zip(got, want, strict=True):
                b = exact.astype(np.float32) if exact.dtype == np.float64 and a.dtype == np.float32 else exact
                # The published answers of a few cases are rounded to four digits; the others agree far closer.
                close = (
                    a.shape == b.shape
                    and a.dtype == b.dtype
                    and np.allclose(a, b, rtol=1e-5, atol=1e-4, equal_nan=True)
                )
                if not close:
                    wrong.append(f"{case.name}: {a} instead of {b}")
            passed += 1
            ran |= {n.op_type for n in case.model.graph.node}
    assert not wrong, "\n".join(wrong)
    assert passed >= 620, f"{passed} ran, {len(refused)} refused"
    untested = OPERATORS - ran
    assert untested == set(ELSEWHERE), f"operators without a case that runs: {sorted(untested ^ set(ELSEWHERE))}"
