"""The two runtimes that parts of a model run in, with one face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.errors import FormatError, MissingExtraError, UsageError
from secateur.limits import quoted, shortened
from secateur.native import _native
from secateur.shell import runtimes

Array = NDArray[Any]
Open = Callable[[bytes], _native.Session]
Types = dict[str, tuple[int, list[int] | None]]  # of values: ONNX's element type, shape (free axes -1)
# ONNX's numbers of element types, by ONNX Runtime's words for them.
ELEMENTS = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9,
    "float16": 10, "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16, "float8e4m3fn": 17,
    "float8e4m3fnuz": 18, "float8e5m2": 19, "float8e5m2fnuz": 20, "uint4": 21, "int4": 22,
}  # fmt: skip
BETWEEN = range(1, 14)  # the element types that NumPy has, so that one runtime's arrays are the other's
_NUMPY = {"float": "float32", "double": "float64"}


def numpy_element(array: Any) -> int:
    """ONNX's number of an array's element type; 0 for what is no array of numbers."""
    if not isinstance(array, np.ndarray):
        return 0
    return next((n for word, n in ELEMENTS.items() if _NUMPY.get(word, word) == array.dtype.name), 0)


class Part(Protocol):
    """Some nodes in one runtime."""

    inputs: list[str]
    outputs: list[str]

    def run(self, values: Mapping[str, Array]) -> list[Array]: ...
    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]: ...


class Peer(Exception):
    """What ONNX Runtime says to a model or to inputs that it does not take, on one line."""


class EnginePart:
    """One extracted model in the engine.

    Args:
        extract: the part as an ONNX file, with the shapes that were inferred for its inputs or (False) without them.
    """

    def __init__(
        self, names: list[str], inputs: list[str], outputs: list[str], open_: Open, extract: Callable[[bool], bytes]
    ) -> None:
        self.names, self.inputs, self.outputs = names, inputs, outputs
        self._open, self._extract, self._inferred = open_, extract, True
        try:
            self.session = open_(extract(True))
        except FormatError:  # shapes that contradict the part are none of ours
            self._without_shapes()

    def _without_shapes(self) -> None:
        self._inferred = False
        self.session = self._open(self._extract(False))

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        feeds = {name: values[name] for name in self.inputs}
        try:
            return self.session.run(self.outputs, feeds)
        except UsageError:
            if not self._inferred:
                raise
        self._without_shapes()
        return self.session.run(self.outputs, feeds)

    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        if not known_shapes(self.session):
            return [_row(self.names, "engine", "chosen at the first run")]
        return self.session._explain(batch, repeats)


class _Planned(Protocol):
    @property
    def planned(self) -> bool: ...
    def get_inputs(self) -> list[_native.NodeArg]: ...


def known_shapes(session: _Planned) -> bool:
    """Whether no axis but the first of any input is free: then the session has planned, and `explain` can tell."""
    return session.planned and all(isinstance(d, int) for value in session.get_inputs() for d in value.shape[1:])


class PeerPart:
    """One extracted model in ONNX Runtime, or a whole one. It reads the arrays where they are."""

    def __init__(
        self, models: Iterable[bytes], names: list[str], inputs: list[str], outputs: list[str], threads: int | None,
        why: str,
    ) -> None:  # fmt: skip
        """`models`: ways to say the same, the first that loads is taken."""
        self.names, self.inputs, self.outputs, self.why = names, inputs, outputs, why
        error = Peer("no way to say it")
        for model in models:
            try:
                self.session = open_peer(model, threads)
                return
            except Peer as refused:
                error = refused
        raise error

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        return self.run_for(self.outputs, {name: values[name] for name in self.inputs})

    def run_for(self, outputs: list[str], feeds: Mapping[str, Any]) -> list[Any]:
        """These outputs; what is not an array is what ONNX Runtime takes and gives for it."""
        for value in feeds.values():
            if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
                feeds = {n: _contiguous(v) for n, v in feeds.items()}
                break
        try:
            found: list[Any] = self.session.run(outputs, feeds)
        except Exception as error:  # ONNX Runtime's errors have no common class but this
            raise _said(error) from None
        return found

    def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        return [_row(self.names, "onnxruntime", self.why)]


def _contiguous(value: Any) -> Any:
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) and value.ndim else value


def _row(names: list[str], kernel: str, why: str) -> dict[str, Any]:
    """A row of `explain` for a part of which no single steps are known."""
    empty = dict.fromkeys(("input", "output", "weight", "macs", "density", "predicted_us", "time_us"))
    return {
        "node": ", ".join(names), "layer": None, "op": "", "kernel": kernel, "why": why, **empty,
        "n_weights": 0, "nnz": 0, "packed_nbytes": 0, "n_nodes": len(names),
    }  # fmt: skip


def _said(error: Exception) -> Peer:
    return Peer(shortened(" ".join(str(error).split())[:300]))


def open_peer(model: bytes, threads: int | None, types_only: bool = False) -> Any:
    """ONNX Runtime's session. Raises Peer, or MissingExtraError where ONNX Runtime is not installed."""
    try:
        ort = runtimes.onnxruntime()
    except ImportError:
        raise MissingExtraError(
            "parts of this model need ONNX Runtime, which is not installed: pip install 'secateur[peers]'"
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _native.usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if types_only else levels.ORT_ENABLE_ALL
    try:
        # Its own fallback tries the same provider again and prints to stdout.
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        raise _said(error) from None


def inferred(file: _native.File, shapes: Mapping[str, Sequence[int]]) -> Types:
    """Element type and shape of the values in a model, as ONNX Runtime infers them for these shapes of the inputs.

    Free axes are -1; a shape is None where it is not known (ONNX Runtime says the same of scalars). Values that are not
    tensors are left out. Raises Peer.
    """
    sizes = {name: list(shape) for name, shape in shapes.items()}
    try:
        session = open_peer(file.expose(sizes, weights=False), 1, types_only=True)
    except Peer:  # some operators want their weights to be constants
        session = open_peer(file.expose(sizes, weights=True), 1, types_only=True)
    types: Types = {}
    for value in session.get_outputs():
        element = value.type.removeprefix("tensor(").removesuffix(")")
        if element in ELEMENTS:
            shape = [d if isinstance(d, int) else -1 for d in value.shape]
            types[value.name] = (ELEMENTS[element], shape or None)
    return types


class FeedCheck:
    """Raises UsageError for a name, element type or shape that does not fit; looks at tensors of numbers only.

    What a model wants is read once: asking the bindings for it takes longer than a small model runs.
    """

    def __init__(self, inputs: Sequence[_native.NodeArg]) -> None:
        self._names = [value.name for value in inputs]
        self._known = set(self._names)
        self._arrays: list[tuple[str, np.dtype[Any], tuple[Any, ...]]] = []
        for value in inputs:
            element = value.type.removeprefix("tensor(").removesuffix(")")
            if ELEMENTS.get(element, 0) in BETWEEN and element != "string":
                self._arrays.append((value.name, np.dtype(_NUMPY.get(element, element)), tuple(value.shape)))

    def __call__(self, feeds: Mapping[str, Any]) -> None:
        if type(feeds) is not dict and not isinstance(feeds, Mapping):  # the second question takes a while
            raise UsageError(
                f"run(): feeds is a {type(feeds).__name__}; it must be a dict from input name to numpy array"
            )
        if feeds.keys() != self._known:
            self._refuse_names(feeds)
        for name, dtype, shape in self._arrays:
            array = feeds[name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype or (shape and array.shape != shape):
                _check_array(name, dtype, list(shape), array)

    def _refuse_names(self, feeds: Mapping[str, Any]) -> None:
        listed = ", ".join(map(quoted, self._names)) or "none"
        for name in self._names:
            if name not in feeds:
                raise UsageError(f"run(): input {quoted(name)} is missing from feeds; the model's inputs: {listed}")
        for name in feeds:
            if name not in self._names:
                raise UsageError(f"run(): feeds has an unknown input {quoted(name)}; the model's inputs: {listed}")


def _check_array(name: str, dtype: np.dtype[Any], shape: list[Any], array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise UsageError(
            f"run(): input {quoted(name)} is a {type(array).__name__}; it must be a numpy array of {dtype}"
        )
    if array.dtype != dtype:
        raise UsageError(
            f"run(): input {quoted(name)} has dtype {array.dtype}, expected {dtype}; "
            f"convert it with .astype({dtype.name!r})"
        )
    fits = len(shape) == array.ndim and all(
        not isinstance(want, int) or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if shape and not fits:
        raise UsageError(f"run(): input {quoted(name)} has shape {list(array.shape)}, expected {shape}")
