"""Models the engine does not cover: the largest parts it can run, and ONNX Runtime for the nodes in between."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.engine import _native
from secateur.errors import MissingExtraError, UnsupportedError, UsageError

Array = NDArray[Any]
Open = Callable[[bytes], _native.Session]
Types = dict[str, tuple[int, list[int] | None]]  # of values: ONNX's element type, shape (free axes -1)
# ONNX's numbers of element types, by ONNX Runtime's words for them.
_TYPES = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip
_LISTED = 8  # nodes named in a message


class _Part(Protocol):
    """Some nodes in one runtime."""

    inputs: list[str]
    outputs: list[str]

    def run(self, values: Mapping[str, Array]) -> list[Array]: ...
    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]: ...


class _Engine:
    def __init__(self, model: bytes, names: list[str], inputs: list[str], outputs: list[str], open_: Open) -> None:
        self.names, self.inputs, self.outputs = names, inputs, outputs
        self.session = open_(model)

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        return self.session.run(self.outputs, {name: values[name] for name in self.inputs})

    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        if not known_shapes(self.session):
            return [_row(self.names, "engine", "chosen at the first run")]
        return self.session._explain(batch, repeats)


def known_shapes(session: _native.Session | Parts) -> bool:
    """Whether no axis but the first of any input is free: then the session has planned, and knows that it can run."""
    return all(isinstance(d, int) for value in session.get_inputs() for d in value.shape[1:])


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
        return [_row(self.names, "onnxruntime", self.why)]


def _row(names: list[str], kernel: str, why: str) -> dict[str, Any]:
    """A row of `explain` for a part of which no single steps are known."""
    empty = dict.fromkeys(("input", "output", "weight", "macs", "density", "predicted_us", "time_us"))
    return {
        "node": ", ".join(names), "layer": None, "op": "", "kernel": kernel, "why": why, **empty,
        "n_weights": 0, "nnz": 0, "packed_nbytes": 0, "n_nodes": len(names),
    }  # fmt: skip


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
        raise _Peer(" ".join(str(error).split())[:300]) from None


class Parts:
    """What `InferenceSession` runs when the engine does not cover the model: parts in the engine and in ONNX Runtime.

    The graph is cut into the largest parts that either side can run; parts of the engine without a layer of their own
    go to ONNX Runtime too, as a change of runtime would cost more than it gives. Models with subgraphs (If, Loop) are
    refused, as they cannot be cut. In a forked child the parts are made anew: ONNX Runtime's threads stay behind.

    Args:
        model: an `.onnx` or `.sct` file's bytes.
        open_: makes the engine's session of a part.
        threads: of ONNX Runtime; None takes all CPUs.
        error: why the engine refused the whole.
    Raises:
        MissingExtraError: ONNX Runtime is not installed; the message names the nodes. UnsupportedError: neither runtime
        takes a node.
    """

    def __init__(self, model: bytes, open_: Open, threads: int | None, error: UnsupportedError) -> None:
        self._model, self._open, self._threads = model, open_, threads
        self._inputs, self._outputs = _native.interface(model)
        # An error without a node speaks of an unnamed one, or of the whole model; the parts will say it again.
        self._plan = self._cut({error.node: str(error)} if error.node else {})

    def _cut(self, refused: Mapping[str, str]) -> _Plan:
        """The graph cut by what is refused so far; a part that refuses another node starts over without it."""
        while True:
            try:
                return _Plan(self._model, refused, self._open, self._threads)
            except _Refused as found:
                refused = self._with(refused, found.error)

    def _with(self, refused: Mapping[str, str], error: UnsupportedError) -> dict[str, str]:
        """`refused` and the error's node; all nodes for an error that speaks of the whole model, such as its opset."""
        names = [error.node] if error.node else [n for n, _, _ in _native.partition(self._model, {})["nodes"]]
        more = {name: str(error) for name in names if name not in refused}
        if not more:
            raise error
        return {**refused, **more}

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As `InferenceSession.run`. A node that the engine refuses for these shapes is handed over from then on."""
        while True:
            plan = self._plan  # another thread may put another one there
            if plan.pid != os.getpid():
                _left_behind.append(plan)  # destroying its sessions would wait for threads that are not here
                self._plan = plan = self._cut(plan.refused)
            values = dict(feeds)
            try:
                for part in plan.parts:
                    values.update(zip(part.outputs, part.run(values), strict=True))
            except UnsupportedError as error:
                self._plan = self._cut(self._with(plan.refused, error))
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

    def _explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        return [row for part in self._plan.parts for row in part.explain(batch, repeats)]

    @property
    def coverage(self) -> dict[str, Any]:
        """As `InferenceSession.coverage`."""
        return self._plan.coverage

    @property
    def _sessions(self) -> list[_native.Session]:
        return [part.session for part in self._plan.parts if isinstance(part, _Engine)]

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._sessions[0].threads if self._sessions else self._threads or os.cpu_count() or 1

    @property
    def isa(self) -> str:
        """The engine's kernel level."""
        return self._sessions[0].isa if self._sessions else _native.isas()[-1]

    @property
    def notes(self) -> list[str]:
        """What was done to the engine's parts before planning."""
        return [note for session in self._sessions for note in session.notes]


_left_behind: list[_Plan] = []


class _Peer(Exception):
    """What ONNX Runtime says to a model it does not take, on one line."""


class _Refused(Exception):
    def __init__(self, error: UnsupportedError) -> None:
        super().__init__(str(error))
        self.error = error


class _Plan:
    """One way to cut the model. Not changed once made."""

    def __init__(self, model: bytes, refused: Mapping[str, str], open_: Open, threads: int | None) -> None:
        found = _native.partition(model, refused)
        self.refused, self.pid = refused, os.getpid()
        self.parts: list[_Part] = []
        self.coverage = _coverage(found)
        reasons, parts = found["refused"], found["parts"]
        own = {name for _, _, _, outputs in parts for name in outputs}
        inner = sorted({name for _, _, inputs, _ in parts for name in inputs if name in own})
        nodes = found["nodes"]
        layers = {nodes[row["index"]][0]: row for row in _native.layers(model)["layers"] if row["n_weights"]}
        weighed = {outputs[0]: name for name, _, outputs in nodes if name in reasons and name in layers}
        try:
            types = _types(model, sorted({*inner, *weighed}))
            self._build(model, parts, reasons, {name: types[name] for name in inner}, open_, threads)
        except MissingExtraError as error:
            raise MissingExtraError(f"{error}; the nodes: {_listed(self.coverage['handed_over'])}") from None
        except _Peer as error:
            nodes_left = _listed(self.coverage["handed_over"])
            raise UnsupportedError(
                f"neither the engine nor ONNX Runtime takes {nodes_left}; the latter: {error}"
            ) from None
        rows = [row for part in self.parts if isinstance(part, _Engine) for row in part.explain(1, 0)]
        self.coverage["macs"] = {
            "engine": _sum(row["macs"] for row in rows),
            "handed_over": _sum(_macs(layers[node], types[value][1]) for value, node in weighed.items()),
        }

    def _build(
        self, model: bytes, parts: Any, reasons: Mapping[str, str], types: Types, open_: Open, threads: int | None
    ) -> None:
        for engine, names, inputs, outputs in parts:
            if not outputs:
                continue
            extracted = _native.extract(model, names, inputs, outputs, types)
            if engine:
                try:
                    self.parts.append(_Engine(extracted, names, inputs, outputs, open_))
                except UnsupportedError as error:
                    raise _Refused(error) from error
            else:
                why = "; ".join(dict.fromkeys(reasons[name] for name in names))
                self.parts.append(_OnnxRuntime(extracted, names, inputs, outputs, threads, why))


def _sum(values: Any) -> int | None:
    """Their sum; None when one is not known."""
    known = list(values)
    return None if None in known else sum(known)


def _macs(layer: Mapping[str, Any], output: list[int] | None) -> int | None:
    """Dense multiply-adds for one example of a layer with constant weights; None where they cannot be told."""
    if output is None or any(d < 0 for d in output[1:]) or layer["op"] not in ("Conv", "Gemm", "MatMul"):
        return None
    positions = output[2:] if layer["op"] == "Conv" else output[1:-1]
    return int(layer["n_weights"]) * math.prod(positions)


def coverage(model: bytes) -> dict[str, Any]:
    """`InferenceSession.coverage` by operators alone, without planning: no shapes, no ONNX Runtime needed."""
    return _coverage(_native.partition(model, {}))


def _coverage(found: Mapping[str, Any]) -> dict[str, Any]:
    ops, reasons = {name: op for name, op, _ in found["nodes"]}, found["refused"]
    return {
        "n_nodes": len(ops),
        "n_engine": len(ops) - len(reasons),
        "macs": {"engine": None, "handed_over": None if reasons else 0},
        "handed_over": [{"node": name, "op": ops[name], "why": why} for name, why in reasons.items()],
    }


def share(coverage: Mapping[str, Any]) -> str:
    """What the engine covers, in a sentence: share of nodes, of multiply-adds where known, and who takes the rest."""
    ours, rest = coverage["macs"]["engine"], coverage["macs"]["handed_over"]
    macs = (
        f" and {100 * ours / (ours + rest):.1f} % of the multiply-adds"
        if ours is not None and rest is not None and ours + rest
        else ""
    )
    text = f"{coverage['n_engine']} of {coverage['n_nodes']} nodes{macs} run in the engine"
    handed = coverage["handed_over"]
    return f"{text}; ONNX Runtime takes {_listed(handed)}" if handed else text


def _listed(handed: Sequence[Mapping[str, Any]]) -> str:
    named = ", ".join(f"{h['node']!r} ({h['op']}: {h['why']})" for h in handed[:_LISTED])
    return named + (f" and {len(handed) - _LISTED} more" if len(handed) > _LISTED else "")


def _types(model: bytes, values: list[str]) -> Types:
    """Element type and shape of inner values, as ONNX Runtime infers them; free axes are -1."""
    if not values:
        return {}
    session = _onnxruntime_session(_native.expose(model, values), 1, types_only=True)
    types: Types = {}
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
