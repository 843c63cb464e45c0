"""Models the engine does not cover: the largest parts it can run, and ONNX Runtime for the nodes in between."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from secateur.engine.coverage import covered, listed
from secateur.engine.parts import (
    BETWEEN,
    ELEMENTS,
    Array,
    EnginePart,
    FeedCheck,
    Open,
    Part,
    Peer,
    PeerPart,
    Types,
    inferred,
    numpy_element,
)
from secateur.errors import FormatError, MissingExtraError, UnsupportedError, UsageError
from secateur.formats import unpack
from secateur.limits import quoted
from secateur.native import _native

Shapes = Mapping[str, Sequence[int]]  # of the model's inputs
_ROUNDS = 8  # ways to cut a model that are tried before all of it is handed over


class Parts:
    """What `InferenceSession` runs when the engine does not cover the model: parts in the engine and in ONNX Runtime.

    The graph is cut into the largest parts that either side can run; parts of the engine without a layer of their own
    go to ONNX Runtime too, as a change of runtime would cost more than it gives. What the engine refuses is asked for
    all nodes at once. Where no cut works, all of the file runs in ONNX Runtime, as it stands. In a forked child the
    parts are made anew: ONNX Runtime's threads stay behind.

    Args:
        model: an `.onnx` or `.sct` file's bytes.
        open_: makes the engine's session of a part.
        threads: of ONNX Runtime; None takes all CPUs.
        error: why the engine refused the whole.
        shapes: of the inputs that it refused the whole for; None: at opening.
    Raises:
        MissingExtraError: ONNX Runtime is not installed; the message names the nodes. UnsupportedError: neither runtime
        takes the model.
    """

    def __init__(
        self, model: bytes, open_: Open, threads: int | None, error: UnsupportedError, shapes: Shapes | None = None
    ) -> None:
        self._model = unpack(model) if _native.is_sct(model) else model
        self.open, self.threads_asked = open_, threads
        self._inputs, self._outputs = _native.interface(self._model)
        self._check_feeds, self._names = FeedCheck(self._inputs), [o.name for o in self._outputs]
        self._types: Types | None = None
        self._file: _native.File | None = None
        self.computed: dict[str, tuple[int, list[int], bytes]] = {}
        self._recut = 0
        self._spare: _Plan | None = None  # the whole model in ONNX Runtime, once a run has failed in parts
        # An error without a node speaks of an unnamed one, or of the whole model; the parts will say it again.
        refused = {error.node: str(error)} if error.node else {}
        try:
            self._plan = self._cut(refused, shapes)
        except MissingExtraError as missing:
            handed = covered(self.file.partition(refused))["handed_over"]
            raise MissingExtraError(f"{missing}; {listed(handed) or error}") from None
        self._said = self._plan.outputs(self._outputs)

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self._model

    @property
    def file(self) -> _native.File:
        """The model as it is cut."""
        return self._file or _native.File(self._model)

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        """While the model is cut it is read once; afterwards its tensors would only take memory."""
        outer, self._file = self._file, self.file
        try:
            yield
        finally:
            self._file = outer

    def types(self) -> Types:
        """Of the values in the model, for the shapes it declares."""
        if self._types is None:
            self._types = inferred(self.file, {})
        return self._types

    def _cut(self, refused: Mapping[str, str], shapes: Shapes | None) -> _Plan:
        """The graph cut by what is refused so far; where a part refuses more, it is cut again by all of that."""
        why = f"it would not do with less after {_ROUNDS} ways to cut it"
        with self._read():
            try:
                for _ in range(_ROUNDS):
                    try:
                        return _Plan(self, refused)
                    except _Refused as found:
                        refused = self._more(refused, found, shapes)
            except (_Whole, Peer) as reason:
                why = str(reason)
            return self._whole(refused, why)

    def _more(self, refused: Mapping[str, str], found: _Refused, shapes: Shapes | None) -> dict[str, str]:
        names = {name for name, *_ in found.partition["nodes"]}
        more = dict(found.why)
        if found.ask:
            more |= self._refusals(found.partition, shapes)
        more = {name: why for name, why in more.items() if name in names and name not in refused}
        if not more:
            raise _Whole(found.message)
        return {**refused, **more}

    def _refusals(self, partition: Mapping[str, Any], shapes: Shapes | None) -> dict[str, str]:
        """Every node that the engine's parts refuse, with the reason."""
        parts = [_extract(self, part) for part in partition["parts"] if part[0] and part[3]]
        why: dict[str, str] = {}
        for types in self._tables(shapes):
            try:
                found = [_native.refusals(part, types) for part in parts]
            except UnsupportedError as error:  # of no node, but of the model
                raise _Whole(str(error)) from None
            for refused, _ in found:
                why |= refused
            if all(fits for _, fits in found):
                break
        return why

    def _tables(self, shapes: Shapes | None) -> Iterator[Types]:
        """Types of all values with the inputs' sizes known: those of a run, else guesses until one fits."""
        given = [shapes] if shapes is not None else self.file.guesses()
        for sizes in given or [{}]:
            try:
                types = inferred(self.file, sizes) if sizes else self.types()
            except Peer:
                continue
            elements = {v.name: v.type.removeprefix("tensor(").removesuffix(")") for v in self._inputs}
            inputs: Types = {
                name: (ELEMENTS[elements[name]], list(shape))
                for name, shape in sizes.items()
                if elements[name] in ELEMENTS
            }
            yield types | inputs

    def _whole(self, refused: Mapping[str, str], why: str) -> _Plan:
        return _Plan(self, refused, whole=why)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As `InferenceSession.run`. What the engine refuses for these shapes is handed over from then on."""
        names = self._wanted(output_names)
        self._check_feeds(feeds)
        while True:
            plan = self._plan  # another thread may put another one there
            if plan.process is not _process[-1]:
                _left_behind.append(plan)  # destroying its sessions would wait for threads that are not here
                self._plan = plan = _Plan(self, plan.refused, whole=plan.whole)
            try:
                return plan.run(names, feeds)
            except UnsupportedError as error:
                self._plan = self._after(plan, error, feeds)
            except (Peer, FormatError, UsageError) as error:
                return self._as_a_whole(plan, error, names, feeds)

    def _wanted(self, output_names: Sequence[str] | None) -> list[str]:
        if output_names is None:
            return self._names
        if isinstance(output_names, str):
            raise UsageError("run(): output names is a str; pass a list of names or None")
        names = list(output_names)
        unknown = [n for n in names if n not in self._names]
        if unknown:
            known = ", ".join(map(quoted, self._names))
            raise UsageError(f"run(): the model has no output {quoted(unknown[0])}; its outputs: {known}")
        return names

    def _after(self, plan: _Plan, error: UnsupportedError, feeds: Mapping[str, Array]) -> _Plan:
        """The plan without what a run has refused; all nodes that these shapes refuse go at once."""
        self._recut += 1
        if self._recut > _ROUNDS:
            return self._whole(plan.refused, f"its nodes were refused in {_ROUNDS} runs")
        shapes = {name: list(value.shape) for name, value in feeds.items() if isinstance(value, np.ndarray)}
        why = {error.node: str(error)} if error.node else {}
        with self._read():
            try:
                refused = self._more(plan.refused, _Refused(plan.partition, why, str(error), True), shapes)
            except (_Whole, Peer) as reason:
                return self._whole(plan.refused, str(reason))
            return self._cut(refused, shapes)

    def _as_a_whole(self, plan: _Plan, error: Exception, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Parts that do not fit together (their types are inferred, not declared) run as one from then on."""
        said = (
            UsageError(f"run(): ONNX Runtime does not take these inputs: {error}") if isinstance(error, Peer) else error
        )
        if plan.whole is not None:
            raise said from None
        try:
            if self._spare is None or self._spare.process is not _process[-1]:
                self._spare = self._whole(plan.refused, f"its parts do not fit together: {error}")
            found = self._spare.run(names, feeds)
        except (Peer, UnsupportedError):
            raise said from None
        self._plan = self._spare
        return found

    def get_inputs(self) -> list[_native.NodeArg]:
        """The model's inputs: name, shape, type."""
        return self._inputs

    def get_outputs(self) -> list[_native.NodeArg]:
        """The model's outputs."""
        return self._said

    def _explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
        return [row for part in self._plan.parts for row in part.explain(batch, repeats)]

    @property
    def coverage(self) -> dict[str, Any]:
        """As `InferenceSession.coverage`."""
        return self._plan.coverage

    @property
    def planned(self) -> bool:
        """Whether all of the engine's parts are planned."""
        return all(session.planned for session in self._sessions)

    @property
    def _sessions(self) -> list[_native.Session]:
        return [part.session for part in self._plan.parts if isinstance(part, EnginePart)]

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._sessions[0].threads if self._sessions else self.threads_asked or _native.usable_cpus()

    @property
    def isa(self) -> str:
        """The engine's kernel level."""
        return self._sessions[0].isa if self._sessions else _native.isas()[-1]

    @property
    def notes(self) -> list[str]:
        """What was done to the engine's parts before planning."""
        return [note for session in self._sessions for note in session.notes]


_left_behind: list[_Plan] = []

# The last one stands for the process this is, those before it for its ancestors: os.getpid() asks the system at every
# run, which takes up to 2.6 us.
_process: list[object] = [object()]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _process.append(object()))


class _Whole(Exception):
    """Why no cut is left to try."""


class _Refused(Exception):
    """Nodes that another cut has to do without.

    Args:
        partition: the cut that does not work.
        why: node -> reason.
        message: what to say if those nodes are nobody's.
        ask: whether the engine is to be asked for more of them.
    """

    def __init__(self, partition: Mapping[str, Any], why: Mapping[str, str], message: str, ask: bool = False) -> None:
        super().__init__(message)
        self.partition, self.why, self.message, self.ask = partition, why, message, ask


class _Plan:
    """One way to cut the model. Not changed once made.

    Args:
        owner: whose model it is.
        refused: nodes that are not the engine's, with the reason.
        whole: why no part is the engine's; None: to be seen.
    """

    def __init__(self, owner: Parts, refused: Mapping[str, str], whole: str | None = None) -> None:
        self.partition = found = owner.file.partition(refused)
        self.refused, self.process = refused, _process[-1]
        self.parts: list[Part] = []
        self.whole = whole
        if whole is None and not any(engine for engine, *_ in found["parts"]):
            self.whole = "no part of it is worth a change of runtime"
        if self.whole is not None:
            self._build_whole(owner, found, self.whole)
            return
        types = owner.types()
        self._check(owner, found, types)
        self._build(owner, found)
        self.coverage = covered(found, self.parts)
        self.coverage["macs"] = self._macs(owner, found, types)

    def _build_whole(self, owner: Parts, found: Mapping[str, Any], why: str) -> None:
        reasons = {name: found["refused"].get(name, f"the model runs whole: {why}") for name, *_ in found["nodes"]}
        self.coverage = covered({**found, "refused": reasons})
        inputs, outputs = ([value.name for value in values] for values in _native.interface(owner.model))
        try:
            said = "; ".join(dict.fromkeys(reasons.values()))
            models = (m() for m in (lambda: owner.model, lambda: _native.rewritten(owner.model)))
            self.parts = [PeerPart(models, list(reasons), inputs, outputs, owner.threads_asked, said)]
        except Peer as error:
            nodes = listed(self.coverage["handed_over"])
            raise UnsupportedError(f"neither the engine nor ONNX Runtime takes {nodes}; the latter: {error}") from None

    def _check(self, owner: Parts, found: Mapping[str, Any], types: Types) -> None:
        """Results must come from a part, and what passes between parts must be an array."""
        made = {name: i for i, part in enumerate(found["parts"]) for name in part[3]}
        given = {value.name for value in owner.get_inputs()}
        outputs = [value.name for value in _native.interface(owner.model)[1]]
        if any(name not in made and name not in given for name in outputs):
            raise _Whole("a result of it is a constant")
        nodes: dict[str, str] = {}
        for i, (_, _, inputs, _, _) in enumerate(found["parts"]):
            for value in inputs:
                if value in made and types.get(value, (0, None))[0] not in BETWEEN:
                    between = found["parts"][made[value] : i + 1]
                    why = f"value {value!r} between two parts is not an array"
                    nodes |= {name: why for engine, names, *_ in between if engine for name in names}
        if nodes:
            raise _Refused(found, nodes, "values between its parts are not arrays")
        for engine, _, _, _, computed in found["parts"]:
            for value in computed if engine else []:
                if value not in owner.computed:
                    owner.computed[value] = _computed(owner, found, value)

    def _build(self, owner: Parts, found: Mapping[str, Any]) -> None:
        for i, part in enumerate(found["parts"]):
            engine, names, inputs, outputs, _ = part
            if not outputs:
                continue
            if engine:
                self.parts.append(self._engine_part(owner, found, part))
                continue
            why = "; ".join(dict.fromkeys(found["refused"][name] for name in names))
            models = (_extract(owner, part, said) for said in ("ranks", "nothing"))
            try:
                self.parts.append(PeerPart(models, names, inputs, outputs, owner.threads_asked, why))
            except Peer as error:
                beside = found["parts"][max(i - 1, 0) : i + 2]
                why = f"ONNX Runtime does not take the nodes beside it alone: {error}"
                raise _Refused(found, {n: why for e, ns, *_ in beside if e for n in ns}, str(error)) from None

    def _engine_part(self, owner: Parts, found: Mapping[str, Any], part: Any) -> EnginePart:
        def extract(shapes: bool) -> bytes:
            return _extract(owner, part, "shapes" if shapes else "nothing")

        try:
            return EnginePart(part[1], part[2], part[3], owner.open, extract)
        except UnsupportedError as error:
            why = {error.node: str(error)} if error.node else {}
            raise _Refused(found, why, str(error), ask=True) from None
        except FormatError as error:
            raise _Whole(f"a part of it does not fit together: {error}") from None

    def _macs(self, owner: Parts, found: Mapping[str, Any], types: Types) -> dict[str, int | None]:
        weights = owner.file.weights()
        handed = [
            _macs(op, weights[inputs[1]], types.get(outputs[0], (0, None))[1])
            for name, op, inputs, outputs in found["nodes"]
            if name in found["refused"] and op in ("Conv", "Gemm", "MatMul") and inputs[1:2] and inputs[1] in weights
        ]
        rows = [row for part in self.parts if isinstance(part, EnginePart) for row in part.explain(1, 0)]
        return {"engine": _sum(row["macs"] for row in rows), "handed_over": _sum(handed)}

    def run(self, names: list[str], feeds: Mapping[str, Any]) -> list[Any]:
        if self.whole is not None and isinstance(self.parts[0], PeerPart):
            return self.parts[0].run_for(names, feeds)
        values = dict(feeds)
        for part in self.parts:
            values.update(zip(part.outputs, part.run(values), strict=True))
        return [values[n] for n in names]

    def outputs(self, declared: list[_native.NodeArg]) -> list[_native.NodeArg]:
        """The model's outputs; ONNX Runtime knows the types that a file may leave out."""
        if self.whole is None or not isinstance(self.parts[0], PeerPart):
            return declared
        known = {value.name: value for value in self.parts[0].session.get_outputs()}
        return [known[value.name] if "unknown" in value.type else value for value in declared]


def _extract(owner: Parts, part: Any, inputs: str = "shapes") -> bytes:
    """A part as an ONNX file. `inputs`: what is said of inner values beside their element types, which are sure.

    Inferred sizes can be wrong, ranks hardly ever; but without sizes the engine cannot plan before the first run.
    """
    engine, names, values, outputs, computed = part
    said: Types = {}
    types = owner.types()
    for name in values:
        if name in types:
            element, shape = types[name]
            ranks = None if shape is None or inputs == "nothing" else [-1] * len(shape)
            said[name] = (element, shape if inputs == "shapes" else ranks)
    given = {name: owner.computed[name] for name in computed} if engine else {}
    return owner.file.extract(names, values, outputs, said, given)


def _computed(owner: Parts, found: Mapping[str, Any], value: str) -> tuple[int, list[int], bytes]:
    """A constant that the engine reads and refuses to compute, as ONNX Runtime computes it: type, shape, bytes."""
    try:
        file = owner.file.extract([], [], [value], {}, {})
        array = PeerPart([file], [], [], [value], 1, "").run({})[0]
        element = numpy_element(array)
    except Peer:
        element = 0
    if element == 0:
        why = f"constant {value!r} is not an array of numbers"
        readers = [name for name, _, inputs, _ in found["nodes"] if value in inputs and name not in found["refused"]]
        raise _Refused(found, dict.fromkeys(readers, why), why)
    return element, list(array.shape), array.tobytes()


def _sum(values: Any) -> int | None:
    """Their sum; None when one is not known."""
    known = list(values)
    return None if None in known else sum(known)


def _macs(op: str, n_weights: int, output: list[int] | None) -> int | None:
    """Dense multiply-adds for one example of a layer with constant weights; None where they cannot be told."""
    if output is None or any(d < 0 for d in output[1:]):
        return None
    return n_weights * math.prod(output[2:] if op == "Conv" else output[1:-1])
