"""Run a model: `.onnx` or `.sct`, in the habits of ONNX Runtime."""

from __future__ import annotations

import functools
import importlib.util
import mmap
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from secateur import formats
from secateur.engine import foreign, plans, rates, timings
from secateur.engine.coverage import share
from secateur.engine.mixed import Parts
from secateur.engine.parts import known_shapes
from secateur.errors import FormatError, HandedOverWarning, UnsupportedError, UsageError
from secateur.native import _native

Array = NDArray[Any]


_LARGE = 8 << 20  # bytes of a file
_HEAD = 16  # bytes of a file that tell how many levels it has


def isas() -> tuple[str, ...]:
    """The kernel levels this machine can run, slowest first; `SECATEUR_ISA` takes one of them."""
    return tuple(_native.isas())


@functools.cache
def _onnxruntime_is_there() -> bool:
    """Whether it is installed, without importing it."""
    try:
        return importlib.util.find_spec("onnxruntime") is not None
    except ImportError:
        return False


def read_model(path_or_bytes: str | os.PathLike[str] | bytes | bytearray | memoryview) -> bytes:
    """The bytes of a model given as a path or as bytes.

    Raises:
        UsageError: no such file, a folder, something that is neither a path nor bytes, or a file of another kind.
    """
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        data = bytes(path_or_bytes)
        foreign.refuse("model", data[: foreign.HEAD])
        return data
    if not isinstance(path_or_bytes, (str, os.PathLike)):
        raise UsageError(
            f"model: got {type(path_or_bytes).__name__}; pass the path of an .onnx or .sct file, or its bytes"
        )
    path = Path(path_or_bytes)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; pass the path of an .onnx or .sct file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; pass the path of an .onnx or .sct file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    foreign.refuse(str(path), data[: foreign.HEAD])
    return data


def _read_once(path_or_bytes: str | os.PathLike[str] | bytes) -> bytes | mmap.mmap:
    """As `read_model`; a large file comes in memory whose pages go back to the system while the model is read."""
    if sys.platform != "linux" or not isinstance(path_or_bytes, (str, os.PathLike)):
        return read_model(path_or_bytes)
    try:
        with open(path_or_bytes, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size >= _LARGE:
                pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                if file.readinto(pages) == size:
                    foreign.refuse(os.fspath(path_or_bytes), pages[: foreign.HEAD])
                    return pages
    except OSError:
        pass  # said in the words of read_model
    return read_model(path_or_bytes)


class _Session(_native.Session):
    """The native half, with the hash of its model."""

    def __init__(
        self,
        model: bytes | mmap.mmap,
        threads: int,
        tune: str,
        known: timings.Choices,
        saved: plans.Saved,
        plain_loops: bool,
        limits: tuple[float, float],
        calibrated: rates.Rates | None,
        level: int,
    ) -> None:
        self.digest = plans.digest(model, level)
        super().__init__(model, threads, True, tune, known, saved, plain_loops, *limits, calibrated, level)


class InferenceSession:
    """A model ready to run on the CPU.

    Reads ONNX (opset 1 to 23) and `.sct`, plans once per set of input shapes, and runs zeros at no cost where that is
    faster. Any number of Python threads may call `run` at the same time; the GIL is released while the network runs.
    A forked child may go on with its parent's sessions.

    Nodes that the engine does not cover run in ONNX Runtime where that is installed; a warning says so once, and
    `coverage` lists them. Whatever ONNX Runtime runs, a session runs: control flow, sequences, strings, other opsets
    and domains; where no part of a model is the engine's, the whole of it is handed over. Inputs and outputs that are
    no tensors of numbers are what ONNX Runtime takes and gives: lists, dicts, arrays of objects.

    Args:
        path_or_bytes: path of an `.onnx` or `.sct` file, or its bytes.
        threads: threads of one run, >= 1; None takes all CPUs the process may use. Layers below some 20 microseconds
            run on the caller's thread whatever is asked.
        fallback: "onnxruntime", or None to refuse what the engine does not cover. Layers that the engine has plain
            loops for but no kernel (products of two integer operands that come while running) go there as well; with
            None, or where it is not installed or refuses them too, they run.
        tune: "off": the cost model chooses the kernels, always the same ones, by the table of rates shipped for this
            kind of CPU; with the others `secateur calibrate` is asked first. "fast": the two or three best of a layer
            are timed on its weights, some ms each, once per machine (`timings.path()`). "full": more kernels, and other
            ways to cut the layer. None takes SECATEUR_TUNE, else "off". Same results within rounding.
        plan: path of what `save_plan` wrote for this model on this machine: those kernels, nothing timed. Shapes
            that are not in it go by the cost model.
        max_nbytes: the most memory that the activations of one run may be planned to take; None: twice the machine's.
        max_work: the most multiply-adds, and elements read and written, of one run; None: 1e14. Constants computed
            while loading may take a thousandth of it. A few bytes of a damaged or hostile file can ask for any amount.
        level: of a `.sct` file that holds several, 0 (the loosest) on; `set_level` changes it.

    Raises:
        UsageError: the file cannot be read, or `threads` is not a positive integer, or the plan is for something else,
            or the file has no such level, or a run would take more than `max_nbytes` or `max_work`.
        FormatError: the file is damaged, truncated or not a model; `.offset` is the byte where reading stopped.
        UnsupportedError: neither the engine nor the fallback takes the model; the message names the node.
        MissingExtraError: the model needs ONNX Runtime and it is not installed; the message names the nodes.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        threads: int | None = None,
        *,
        fallback: str | None = "onnxruntime",
        tune: str | None = None,
        plan: str | os.PathLike[str] | None = None,
        max_nbytes: float | None = None,
        max_work: float | None = None,
        level: int = 0,
    ) -> None:
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024
        ):
            raise UsageError(f"threads: got {threads!r}; it must be an integer from 1 to 1024, or None")
        if fallback not in ("onnxruntime", None):
            raise UsageError(f"fallback: got {fallback!r}; it must be 'onnxruntime' or None")
        if tune is not None and tune not in timings.MODES:
            raise UsageError(f"tune: got {tune!r}; it must be one of {', '.join(timings.MODES)}, or None")
        if plan is not None and tune not in ("off", None):
            raise UsageError(f"tune={tune!r} and plan={os.fspath(plan)!r}: a plan is not timed again; give one of them")
        for name, limit in (("max_nbytes", max_nbytes), ("max_work", max_work)):
            if limit is not None and not limit > 0:
                raise UsageError(f"{name}: got {limit!r}; it must be a positive number, or None")
        self._limits = (max_nbytes or 0.0, max_work or 0.0)
        self._source = Path(path_or_bytes) if isinstance(path_or_bytes, (str, os.PathLike)) else None
        data = _read_once(path_or_bytes)
        self._plan = None if plan is None else plans.read(plan, data, threads, level)
        self._tune = "off" if plan is not None else tune or timings.asked()
        self._threads = threads if self._plan is None else self._plan.threads
        self._fallback = fallback
        # A layer that only plain loops compute is better off in ONNX Runtime, if that is there.
        self._plain_loops = fallback is None or not _onnxruntime_is_there()
        self._levels = formats.levels(bytes(data[:_HEAD]))
        self._kept: dict[int, dict[str, Any]] = {}  # the levels that were used, packed
        self._level: int  # with `_runs`, `_model` and `_digest` what belongs to the present one
        self._runs: _native.Session | Parts
        self._file = bytes(data) if self._levels > 1 else b""
        try:
            self._take(self._file or data, level, lambda: self._file or read_model(path_or_bytes))
        except FormatError as error:
            if isinstance(path_or_bytes, (str, os.PathLike)):
                raise _named(error, path_or_bytes) from None
            raise
        if self._plan and isinstance(self._runs, _Session) and self._plan.model not in self._plan.parts:
            raise FormatError(f"{os.fspath(plan or '')}: the plan says nothing of its model")
        if isinstance(self._runs, Parts) and self.coverage["handed_over"]:
            warnings.warn(share(self.coverage), HandedOverWarning, stacklevel=2)

    def set_level(self, level: int) -> None:
        """From now on `run` is the net at this level of the file: 0, the loosest, to `levels - 1`.

        A level is read and packed when it is first asked for, as a file of it alone would be, and kept: every level
        that was used takes the memory of a session of its own. Runs under way end at the level at which they began.

        Raises:
            UsageError: the file has no such level. FormatError: what the file says of it is damaged.
        """
        if level not in self._kept:
            self._take(self._file, level, lambda: self._file)
            return
        self._kept[self._level] = self._held()
        self.__dict__.pop("run", None)
        self.__dict__.update(self._kept[level])

    @property
    def level(self) -> int:
        """The level that runs."""
        return self._level

    @property
    def levels(self) -> int:
        """How many levels the file has; 1 for most."""
        return self._levels

    def _held(self) -> dict[str, Any]:
        """What belongs to the present level."""
        return {k: self.__dict__[k] for k in ("_level", "_runs", "_model", "_digest", "run") if k in self.__dict__}

    def _take(self, data: bytes | mmap.mmap, level: int, again: Callable[[], bytes]) -> None:
        """Load a level and make it the present one. `data` may be gone when it has been read, `again` gives it anew."""
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < self._levels:
            last = "one level, 0" if self._levels == 1 else f"{self._levels} levels, 0 (loosest) to {self._levels - 1}"
            raise UsageError(f"level: got {level!r}; the model has {last}")

        def alone() -> bytes:
            return formats.unpack(again(), level=level) if level else again()

        handed: UnsupportedError | None = None
        try:
            runs: _native.Session | Parts = self._open(data, level)
        except UnsupportedError as error:
            if self._fallback is None:
                raise
            runs, handed = self._hand_over(alone(), error), error
        if self._kept:
            self._kept[self._level] = self._held()
        self.__dict__.pop("run", None)
        self._level, self._runs, self._model = level, runs, None
        whole = runs if isinstance(runs, _Session) else None
        self._digest = whole.digest if whole and handed is None else plans.digest(again(), level)
        if whole and self._fallback is not None and not known_shapes(whole):
            self._model = alone()  # the first run may still show a refusal
        if whole and self._model is None and self._tune == "off":
            # There is nothing to add to its run, and one call more is a twentieth of a small net's time.
            self.__dict__["run"] = whole.run
        self._kept[level] = self._held()

    def _open(self, model: bytes | mmap.mmap, level: int = 0) -> _Session:
        asked = self._tune != "off"
        known = timings.read(plans.machine()) if asked else []
        calibrated = rates.read(plans.machine()) if asked else None
        saved = self._plan.parts.get(plans.digest(model, level), []) if self._plan else []
        session = _Session(
            model, self._threads or 0, self._tune, known, saved, self._plain_loops, self._limits, calibrated, level
        )
        self._keep(session)
        return session

    def _hand_over(
        self, model: bytes, error: UnsupportedError, shapes: Mapping[str, list[int]] | None = None
    ) -> _native.Session | Parts:
        """The model in parts; whole with plain loops, where that helps and ONNX Runtime does not.

        `shapes`: of the inputs of the run that was refused.
        """
        try:
            return Parts(model, self._open, self._threads, error, shapes)
        except UnsupportedError as refused:
            if self._plain_loops:
                raise
            self._plain_loops = True
            try:
                return self._open(model)
            except UnsupportedError:
                raise refused from None

    def _keep(self, session: _native.Session) -> None:
        """What was timed lately goes to the file."""
        if self._tune != "off" and (timed := session._take_timed()):
            timings.add(plans.machine(), timed)

    @property
    def _sessions(self) -> list[_native.Session]:
        return self._runs._sessions if isinstance(self._runs, Parts) else [self._runs]

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs named (None: all, in the model's order) for the inputs in `feeds`, as fresh arrays.

        What these shapes show to be none of the engine's is handed over, all at once, from then on.

        Raises:
            UsageError: names, dtypes or shapes that do not fit the model; an index among the values that is outside
                its axis, or more work than the session's limits allow.
            UnsupportedError: these shapes need something that neither the engine nor the fallback has.
        """
        runs = self._runs
        if isinstance(runs, _native.Session):
            try:
                found = runs.run(output_names, feeds)
                if self._tune != "off":
                    self._keep(runs)
                return found
            except UnsupportedError as error:
                if self._model is None:
                    raise
                runs = self._hand_over(self._model, error, {n: list(a.shape) for n, a in feeds.items()})
            told: list[Any] = []
        else:
            told = runs.coverage["handed_over"]
        found = runs.run(output_names, feeds)
        if self._tune == "off" and isinstance(self._runs, Parts) and self._runs.coverage["handed_over"] is told:
            return found  # as most runs do
        self._runs = runs
        for session in self._sessions:
            self._keep(session)
        if len(self.coverage["handed_over"]) > len(told):
            warnings.warn(share(self.coverage), HandedOverWarning, stacklevel=2)
        return found

    def get_inputs(self) -> list[_native.NodeArg]:
        """The model's inputs: name, shape (ints, names of free axes or None), type as ONNX Runtime writes it.

        As "tensor(float)", "seq(map(string,tensor(float)))"; the shape of what is no tensor is empty.
        """
        return self._runs.get_inputs()

    def get_outputs(self) -> list[_native.NodeArg]:
        """The model's outputs."""
        return self._runs.get_outputs()

    def explain(self, batch: int = 1, repeats: int = 30) -> list[dict[str, Any]]:
        """What runs, layer by layer: kernel, why it was chosen, what was found in the weights, time.

        Args:
            batch: size given to free dimensions.
            repeats: timed runs per layer on a fixed pseudo-random input; 0 leaves `time_us` None.
        Returns:
            One dict per step in order of execution: node, op, kernel, why, input, output, weight (shapes), macs,
            n_weights, nnz, density, packed_nbytes, predicted_us (by the cost model, on one thread; None: it has none
            for this step), time_us (median, microseconds). Nodes that were handed over stand
            in one row per part, with the kernel `onnxruntime`, node (names), op, why, n_nodes and macs (None: unknown).
        """
        if batch < 1 or repeats < 0:
            raise UsageError(f"explain(): batch={batch}, repeats={repeats}; batch must be >= 1 and repeats >= 0")
        rows = self._runs._explain(batch, repeats)
        for session in self._sessions:
            self._keep(session)
        return rows

    def memory(self, batch: int = 1) -> dict[str, int]:
        """Bytes that one run takes: `activations` (the arena that its values share) and `weights` as they are packed.

        Args:
            batch: size given to free dimensions.
        Raises:
            UsageError: parts of the model run in ONNX Runtime, or inputs have free axes beside the first.
        """
        if not isinstance(self._runs, _native.Session) or not self.known_shapes:
            raise UsageError(
                "memory(): is known of models that the engine runs whole, for inputs whose axes but the first are fixed"
            )
        weights = sum(row["packed_nbytes"] for row in self._runs._explain(batch, 0))
        return {"activations": self._runs._arena_nbytes(batch), "weights": weights}

    def save_plan(self, path: str | os.PathLike[str]) -> None:
        """Write the kernel and tile of every layer, for all input shapes seen lately (at most 8), to a small JSON file.

        It holds for this model, machine, number of threads and version: `InferenceSession(model, plan=path)` then
        takes the same kernels, timing nothing (docs/design/plan-file.md).

        Raises:
            UsageError: nothing is planned yet, since inputs have free axes: run the model once. Or the whole model runs
                in ONNX Runtime. Or `path` is the model's own file, be it by another name or a link.
            EnvironmentFailure: the file cannot be written.
        """
        source = self._source
        if source is not None and source.exists() and os.path.exists(path) and os.path.samefile(source, path):
            raise UsageError(f"save_plan(): {os.fspath(path)} is the model itself, {source}; give another name")
        if not self._sessions:
            raise UsageError("save_plan(): nothing of this model runs in the engine; there is no plan to write")
        parts = {s.digest: s._decisions() for s in self._sessions if isinstance(s, _Session)}
        if not any(parts.values()):
            raise UsageError("save_plan(): no input shapes are planned yet; run the model once")
        plans.write(path, plans.Plan(self._digest, plans.machine(), self.threads, parts))

    @property
    def tune(self) -> str:
        """How kernels are chosen: "off", "fast" or "full"; "plan" where one was given."""
        return "plan" if self._plan else self._tune

    @property
    def n_timed(self) -> int:
        """Layers that this session timed to choose their kernel."""
        return sum(s.n_timed for s in self._sessions)

    @property
    def coverage(self) -> dict[str, Any]:
        """What the engine covers of the file.

        `n_nodes` of the file, `n_engine` of them in the engine, `planned` (all of these were planned, for guessed sizes
        where axes are free; False: the first run may show more that must be handed over), `macs` {engine, handed_over}
        (dense multiply-adds for one example; None: not known), `handed_over` [{node, op, why}].
        """
        if isinstance(self._runs, Parts):
            return self._runs.coverage
        macs = sum(row["macs"] for row in self._runs._explain(1, 0)) if known_shapes(self._runs) else None
        n = self._runs.n_nodes
        return {
            "n_nodes": n,
            "n_engine": n,
            "planned": self._runs.planned,
            "macs": {"engine": macs, "handed_over": 0},
            "handed_over": [],
        }

    @property
    def known_shapes(self) -> bool:
        """Whether no axis but the first of any input is free: then all is planned, and `explain` can tell."""
        return known_shapes(self._runs)

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._runs.threads

    @property
    def isa(self) -> str:
        """The kernel level in use, one of `isas()`."""
        return self._runs.isa

    @property
    def notes(self) -> list[str]:
        """What was folded, fused and removed before planning."""
        return self._runs.notes


def _named(error: FormatError, path: str | os.PathLike[str]) -> FormatError:
    """The same error with the file's name in front."""
    named = FormatError(f"{os.fspath(path)}: {error}")
    named.offset = error.offset
    return named
