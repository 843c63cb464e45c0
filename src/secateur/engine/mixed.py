"""Models the engine does not cover: the largest parts it can run, and ONNX Runtime for the nodes in between."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.engine import _native
from secateur.engine.session import InferenceSession, read_model
from secateur.errors import MissingExtraError, UnsupportedError, UsageError

Array = NDArray[Any]
# ONNX's numbers of element types, by ONNX Runtime's words for them.
_TYPES = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip


class _Part(Protocol):
    """Some nodes in one runtime."""

    inputs: list[str]
    outputs: list[str]

    def run(self, values: Mapping[str, Array]) -> list[Array]: ...
    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]: ...


class _Engine:
    def __init__(
        self, model: bytes, names: list[str], inputs: list[str], outputs: list[str], threads: int | None
    ) -> None:
        self.names, self.inputs, self.outputs = names, inputs, outputs
        self.session = InferenceSession(model, threads)

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        return self.session.run(self.outputs, {name: values[name] for name in self.inputs})

    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        try:
            return self.session.explain(batch, repeats)
        except UsageError:  # shapes that only a run knows
            row = {
                "node": self.names[0],
                "op": "",
                "kernel": "engine",
                "why": "chosen at the first run",
                "n_nodes": len(self.names),
            }
            return [row]


class _OnnxRuntime:
    """One extracted model; feeds and results stay where they are (IOBinding), nothing is copied between parts."""

    def __init__(
        self, model: bytes, names: list[str], inputs: list[str], outputs: list[str], threads: int | None, why: str
    ) -> None:
        self.names, self.inputs, self.outputs, self.why = names, inputs, outputs, why
        self.session = _onnxruntime_session(model, threads)

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        binding = self.session.io_binding()
        for name in self.inputs:
            binding.bind_cpu_input(name, np.ascontiguousarray(values[name]))
        for name in self.outputs:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        found: list[Array] = binding.copy_outputs_to_cpu()
        return found

    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        return [
            {
                "node": ", ".join(self.names),
                "op": "",
                "kernel": "onnxruntime",
                "why": self.why,
                "n_nodes": len(self.names),
            }
        ]


def _onnxruntime_session(model: bytes, threads: int | None, types_only: bool = False) -> Any:
    try:
        import onnxruntime as ort
    except ImportError:
        raise MissingExtraError(
            "parts of this model need ONNX Runtime, which is not installed: pip install 'secateur[peers]'"
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if types_only else levels.ORT_ENABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class but this
        raise UnsupportedError(
            f"ONNX Runtime does not take the nodes that the engine leaves to it either: {error}"
        ) from None


class MixedSession:
    """`InferenceSession` for any model: what the engine does not cover runs in ONNX Runtime, and is listed.

    The graph is cut into the largest parts that either side can run; parts of the engine without a layer of their own
    go to ONNX Runtime too, as a change of runtime would cost more than it gives. Models with subgraphs (If, Loop) are
    refused, as they cannot be cut. `run`, `get_inputs`, `get_outputs` and `explain` are those of `InferenceSession`.

    Args:
        path_or_bytes: path of an `.onnx` or `.sct` file, or its bytes.
        threads: of either runtime; None takes all CPUs the process may use.
    Attributes:
        coverage: `n_nodes`, `n_engine`, `handed_over` [{node, op, why}].
    Raises:
        MissingExtraError: the model needs ONNX Runtime and it is not installed; the message names the nodes.
        UnsupportedError: neither runtime takes a node. UsageError, FormatError: as `InferenceSession`.
    """

    def __init__(self, path_or_bytes: str | os.PathLike[str] | bytes, threads: int | None = None) -> None:
        self._model = read_model(path_or_bytes)
        self._threads = threads
        self._refused: dict[str, str] = {}
        self._inputs, self._outputs = _native.interface(self._model)
        self._cut()

    def _cut(self) -> None:
        """Cuts the graph by what is refused so far; a part that refuses another node starts over without it."""
        while True:
            try:
                self._parts = self._build()
                return
            except _Refused as refused:
                self._refuse(refused.error)

    def _refuse(self, error: UnsupportedError) -> None:
        if error.node is None or error.node in self._refused:
            raise error
        self._refused[error.node] = str(error)

    def _build(self) -> list[_Part]:
        found = _native.partition(self._model, self._refused)
        reasons = found["refused"]
        self.coverage = _coverage(found)
        parts = found["parts"]
        own = {name for _, _, _, outputs in parts for name in outputs}
        inner = sorted({name for _, _, inputs, _ in parts for name in inputs if name in own})
        try:
            types = _types(self._model, inner)
        except MissingExtraError as error:
            nodes = ", ".join(f"{r['node']!r} ({r['op']}: {r['why']})" for r in self.coverage["handed_over"][:8])
            raise MissingExtraError(f"{error}; the nodes: {nodes}") from None
        built: list[_Part] = []
        for engine, names, inputs, outputs in parts:
            if not outputs:
                continue
            model = _native.extract(self._model, names, inputs, outputs, types)
            if engine:
                try:
                    built.append(_Engine(model, names, inputs, outputs, self._threads))
                except UnsupportedError as error:
                    raise _Refused(error) from error
            else:
                why = "; ".join(dict.fromkeys(reasons[name] for name in names))
                built.append(_OnnxRuntime(model, names, inputs, outputs, self._threads, why))
        return built

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As `InferenceSession.run`. A node that the engine refuses for these shapes is handed over from then on."""
        while True:
            values = dict(feeds)
            try:
                for part in self._parts:
                    values.update(zip(part.outputs, part.run(values), strict=True))
            except UnsupportedError as error:
                self._refuse(error)
                self._cut()
                continue
            except KeyError as error:
                raise UsageError(f"run(): input {error} is missing from feeds") from None
            names = [o.name for o in self._outputs] if output_names is None else list(output_names)
            unknown = [n for n in names if n not in values]
            if unknown:
                raise UsageError(f"run(): the model has no output {unknown[0]!r}")
            return [values[n] for n in names]

    def get_inputs(self) -> list[_native.NodeArg]:
        """The model's inputs: name, shape, type."""
        return self._inputs

    def get_outputs(self) -> list[_native.NodeArg]:
        """The model's outputs."""
        return self._outputs

    def explain(self, batch: int = 1, repeats: int = 30) -> list[dict[str, Any]]:
        """The engine's rows, part by part; a part that was handed over is one row with kernel `onnxruntime`."""
        return [row for part in self._parts for row in part.explain(batch, repeats)]


def coverage(model: bytes) -> dict[str, Any]:
    """`MixedSession.coverage` by operators alone, without planning: no shapes, no ONNX Runtime needed."""
    return _coverage(_native.partition(model, {}))


def _coverage(found: Mapping[str, Any]) -> dict[str, Any]:
    ops, reasons = dict(found["nodes"]), found["refused"]
    return {
        "n_nodes": len(ops),
        "n_engine": len(ops) - len(reasons),
        "handed_over": [{"node": name, "op": ops[name], "why": why} for name, why in reasons.items()],
    }


class _Refused(Exception):
    def __init__(self, error: UnsupportedError) -> None:
        super().__init__(str(error))
        self.error = error


def _types(model: bytes, values: list[str]) -> dict[str, tuple[int, list[int] | None]]:
    """Element type and shape of inner values, as ONNX Runtime infers them; free axes are -1."""
    if not values:
        return {}
    session = _onnxruntime_session(_native.expose(model, values), 1, types_only=True)
    types: dict[str, tuple[int, list[int] | None]] = {}
    for value in session.get_outputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        if kind not in _TYPES:
            raise UnsupportedError(f"value {value.name!r} between two parts is a {value.type}")
        shape = value.shape
        types[value.name] = (
            _TYPES[kind],
            None if shape is None else [d if isinstance(d, int) else -1 for d in shape],
        )
    return types
