"""Makes the table of `latency.py`: the net itself at every pattern, density, width and kind of arithmetic; cached.

A point is the net's own graph with random weights (`patterned.py`), its steps timed one by one where they stand and the
whole as well: what the sum of the steps misses of the whole is shared out among the layers. The graphs in integers, and
of narrower nets, come from whoever can write them, so that they are those of the files that a run writes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from secateur.engine import clock, latency, patterned, plans, quantized
from secateur.engine.latency import ANY, CHANNELS, Row, Table
from secateur.engine.session import InferenceSession
from secateur.errors import ConstraintError, FormatError, HandedOverWarning, UnsupportedError, UsageError
from secateur.native import _native
from secateur.shell import saving
from secateur.version import __version__

DENSITIES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.01)
WIDTHS, THINNED = (0.75, 0.5, 0.375, 0.25, 0.125), (0.5, 0.25, 0.1)  # of narrower nets, and densities in them
PATTERNS = (ANY, "4x1", "16x1", ":4")
_RUNS, _TURNS = 60, 5  # of the whole net at a point
_REPEATS, _PASSES = 40, 2  # of a step; the quieter pass counts
_THREADS = 1
_HOLDS = 2  # what a row holds, for the cache: 2 = with what follows the layer

Form = Callable[[int, float], bytes]  # bits and width -> the net's file
Point = tuple[str, float, int, float]  # pattern, density, bits, width
Told = Callable[[int, int], None]  # points done, points in all


def table(
    model: bytes,
    patterns: Iterable[str] = PATTERNS,
    form: Form | None = None,
    integers: str = "",
    told: Told = lambda done, total: None,
    cached: bool = True,
) -> Table:
    """The table of an `.onnx` file's layers on this machine, one thread, batch 1.

    Args:
        patterns: where zeros may lie, as `Packing.pattern` says it; the dense net and `any` are always among them.
            `channels`: of narrower nets as well.
        form: answers the file in integers (bits 8, not 32), or of a narrower net (width, a share of the channels); a
            file that computes in integers already is timed as it is.
        integers: which layers compute in integers there, for the cache; empty = floats alone.
        cached: take what an earlier call on this machine timed of this graph, and keep what is timed now.
    Raises:
        UnsupportedError: no layer of the file has a weight that the engine multiplies by.
        UsageError: inputs with free axes beside the first.
    """
    net = patterned.parsed(model)
    digest = _digest(net)
    path = saving.cache_folder() / "latency" / f"{_key(digest, integers)}.json"
    known = _kept(path) if cached else None
    bits = (8,) if quantized.computes_in_integers(model) else (32, 8) if integers else (32,)
    asked = _points(list(dict.fromkeys(patterns)), bits)
    missing = [p for p in asked if known is None or p not in known.points]
    if known is not None and not missing:
        told(len(asked), len(asked))
        return known
    maker = _Maker(lambda b, width: model if (b, width) == (bits[0], 1.0) or form is None else form(b, width))
    rows = list(known.rows if known is not None else ())
    for i, point in enumerate(missing):
        told(len(asked) - len(missing) + i, len(asked))
        rows += maker.rows(*point)
    told(len(asked), len(asked))
    found = Table(
        *(_native.cpu_name(), maker.isa, _THREADS, maker.batch, __version__, digest),
        rows=tuple(rows),
        rest_us=maker.rest_us | dict(known.rest_us if known is not None else {}),
        notes=tuple(maker.notes),
    )
    if cached:
        path.parent.mkdir(parents=True, exist_ok=True)
        latency.write(path, found)
    return found


def _points(patterns: list[str], bits: tuple[int, ...]) -> list[Point]:
    """What is timed, the dense net first; of narrower nets in the arithmetic that the answer is to have."""
    found: list[Point] = []
    for b in bits:
        for pattern in [ANY, *patterns]:
            found += [(pattern, d, b, 1.0) for d in _densities(pattern, DENSITIES) if pattern == ANY or d < 1]
    for width in WIDTHS if CHANNELS in patterns else ():
        found.append((ANY, 1.0, bits[-1], width))
        found += [(pattern, d, bits[-1], width) for pattern in patterns for d in _densities(pattern, THINNED)]
    return list(dict.fromkeys(found))


def _densities(pattern: str, wanted: tuple[float, ...]) -> list[float]:
    if pattern == CHANNELS:
        return []
    if not pattern.startswith(":"):
        return list(wanted)
    m = int(pattern[1:])
    return [n / m for n in sorted({*range(1, min(m, 9)), m // 2}) if 0 < n < m]


class _Maker:
    """Times points of one net, whose files `form` answers."""

    def __init__(self, form: Form) -> None:
        self.form, self.notes = form, list[str]()
        self.nets: dict[tuple[int, float], Any] = {}
        self.rest_us: dict[int, float] = {}
        self.isa, self.batch = "", 1

    def rows(self, pattern: str, density: float, bits: int, width: float) -> list[Row]:
        """One point."""
        net = self._net(bits, width)
        if net is None:
            return []
        session = _session(patterned.pruned(net, pattern, density))
        layers = {x.name: x for x in patterned.layers(net)}
        steps = self._steps(session, list(layers.values()))
        together = sum(us for us, _ in steps.values())
        scale = max(clock.timed(session, _RUNS, _TURNS).us - self.rest_us[bits], 0.5 * together) / together
        return [
            Row(*_of(layers[name]), pattern, density, bits, round(scale * us, 4), float(step["packed_nbytes"]), width)
            for name, (us, step) in steps.items()
        ]

    def _net(self, bits: int, width: float) -> Any:
        """The graph, and what surrounds its layers timed; None where nobody can write it, of which a note tells."""
        if (bits, width) not in self.nets:
            try:
                net = patterned.parsed(self.form(bits, width))
                if width == 1.0 or bits not in self.rest_us:
                    self._look_at(net, bits)
            except (ConstraintError, UnsupportedError, UsageError) as e:
                if not self.nets:
                    raise
                self.notes.append(f"no rows of {bits} bits{'' if width == 1.0 else f' at width {width:g}'}: {e}")
                net = None
            self.nets[bits, width] = net
        return self.nets[bits, width]

    def _look_at(self, net: Any, bits: int) -> None:
        """Where layers take least their sum errs least: one per cent of a dense net is more than what surrounds it."""
        sparse = _session(patterned.pruned(net, ANY, DENSITIES[-1]))
        steps = self._steps(sparse, patterned.layers(net))
        if not steps:
            raise UnsupportedError(
                "latency: no layer of this file is a convolution or a product with constant weights that the engine "
                "runs; there is nothing to tabulate"
            )
        self.isa, self.batch = sparse.isa, next(iter(steps.values()))[1]["input"][0]
        self.rest_us[bits] = round(max(clock.timed(sparse).us - sum(us for us, _ in steps.values()), 0.0), 4)

    def _steps(
        self, session: InferenceSession, layers: Iterable[patterned.Layer]
    ) -> dict[str, tuple[float, dict[str, Any]]]:
        """By layer: microseconds of all steps that belong to its node, and the step that holds its weight.

        What moves or pools the values that a layer made (pools, layouts, additions of their own) is the layer's too: it
        takes less where the layer is narrower. Of a small net in integers it is most of what surrounds the layers.
        """
        if session.coverage["handed_over"]:
            self.notes = [*dict.fromkeys([*self.notes, "parts that ONNX Runtime computes have no rows"])]
        by_node = {x.node: x for x in layers}
        found: dict[str, tuple[float, dict[str, Any]]] = {}
        for _ in range(_PASSES):
            once: dict[str, tuple[float, dict[str, Any]]] = {}
            layer = None
            for step in session.explain(1, _REPEATS):
                layer = by_node.get(step["layer"], layer if _follows(step) else None)
                if layer is None or step["time_us"] is None:
                    continue
                us, known = once.get(layer.name, (0.0, step))
                once[layer.name] = (us + step["time_us"], step if step["n_weights"] else known)
            for name, (us, step) in once.items():
                if step["n_weights"] and (name not in found or us < found[name][0]):
                    found[name] = (us, step)
        return found


def _session(model: bytes) -> InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)  # told in the notes
        return InferenceSession(model, threads=_THREADS, tune="off")


def _follows(step: Mapping[str, Any]) -> bool:
    """Does a step without a layer's node work on what the layer before it made? Other weights and runtimes do not."""
    return not step["n_weights"] and step["kernel"] != "onnxruntime"


def _of(layer: patterned.Layer) -> tuple[str, str, tuple[int, ...]]:
    return layer.name, layer.op, layer.shape


def _digest(net: Any) -> str:
    """sha256 of the graph and its shapes, without the values of floats."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(net)
    for t in bare.graph.initializer:
        if len(t.dims) > 0 and t.data_type == onnx.TensorProto.FLOAT:
            t.ClearField("raw_data")
            t.ClearField("float_data")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _key(digest: str, integers: str) -> str:
    of = f"{digest} {integers} {plans.machine()} {_THREADS} {latency.SCHEMA} {_HOLDS}"
    return hashlib.sha256(of.encode()).hexdigest()[:32]


def _kept(path: Path) -> Table | None:
    with suppress(FormatError):
        return latency.read(path) if path.is_file() else None
    warnings.warn(f"{path}: not readable, ignored; layers are timed again", stacklevel=3)
    return None
