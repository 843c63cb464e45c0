"""Makes the table of `latency.py`: the net itself at every pattern, density and width of values, timed; cached.

A point is the net's own graph with random weights (`patterned.py`), its steps timed one by one where they stand and the
whole as well: what the sum of the steps misses of the whole is shared out among the layers.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.engine import clock, latency, patterned, peers, plans, quantized
from secateur.engine.bench import draw
from secateur.engine.latency import ANY, CHANNELS, Row, Table
from secateur.engine.session import InferenceSession
from secateur.errors import FormatError, HandedOverWarning, UnsupportedError
from secateur.native import _native
from secateur.shell import saving
from secateur.version import __version__

DENSITIES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.01)
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
PATTERNS = (ANY, "4x1", "16x1", ":4", CHANNELS)
_RUNS, _TURNS = 60, 5  # of the whole net at a point
_REPEATS, _PASSES = 40, 2  # of a step; the quieter pass counts
_EXAMPLES = 4  # for the ranges of int8
_THREADS = 1

Point = tuple[str, float, int]  # pattern, density, bits
Told = Callable[[int, int], None]  # points done, points in all


def table(
    model: bytes,
    patterns: Iterable[str] = PATTERNS,
    bits: Sequence[int] = (32, 8),
    told: Told = lambda done, total: None,
    cached: bool = True,
) -> Table:
    """The table of an `.onnx` file's layers on this machine, one thread, batch 1.

    Args:
        patterns: where zeros may lie, as `Packing.pattern` says it; `any` is always among them.
        bits: 32, and 8 for integers (by ONNX Runtime's quantizer; where that is missing a note says so). A file that
            computes in integers already is timed as it is.
        cached: take what an earlier call on this machine timed of this graph, and keep what is timed now.
    Raises:
        UnsupportedError: no layer of the file has a weight that the engine multiplies by.
        UsageError: inputs with free axes beside the first.
    """
    net = patterned.parsed(model)
    digest = _digest(net)
    path = saving.cache_folder() / "latency" / f"{_key(digest)}.json"
    known = _kept(path) if cached else None
    wanted = (8,) if quantized.computes_in_integers(model) else tuple(bits)
    asked = _points(dict.fromkeys([ANY, *patterns]), wanted)
    missing = [p for p in asked if known is None or p not in known.points]
    if known is not None and not missing:
        told(len(asked), len(asked))
        return known
    maker = _Maker(model, net, wanted)
    rows: list[Row] = []
    for i, point in enumerate(missing):
        told(len(asked) - len(missing) + i, len(asked))
        rows += maker.rows(*point)
    told(len(asked), len(asked))
    found = Table(
        *(_native.cpu_name(), maker.isa, _THREADS, maker.batch, __version__, digest),
        rows=tuple(rows) if known is None else (*known.rows, *rows),
        rest_us=maker.rest_us if known is None else known.rest_us,
        notes=tuple(maker.notes),
    )
    if cached:
        path.parent.mkdir(parents=True, exist_ok=True)
        latency.write(path, found)
    return found


def _points(patterns: Iterable[str], bits: Sequence[int]) -> list[Point]:
    """What is timed, the dense net first."""
    found: list[Point] = []
    for b in bits:
        for pattern in patterns:
            if pattern == CHANNELS:
                found += [(pattern, d, 32) for d in SHARES if b == 32]
            elif pattern.startswith(":"):
                m = int(pattern[1:])
                found += [(pattern, n / m, b) for n in sorted({*range(1, min(m, 9)), m // 2}) if 0 < n < m]
            else:
                found += [(pattern, d, b) for d in DENSITIES if pattern == ANY or d < 1]
    return list(dict.fromkeys(found))


class _Maker:
    """Times points of one net; `bits` are those of the points to come."""

    def __init__(self, model: bytes, net: Any, bits: Sequence[int]) -> None:
        self.net, self.notes = net, list[str]()
        self.plain = 32 in bits
        dense = _session(patterned.pruned(net, ANY, 1.0))
        steps = self._steps(dense, patterned.layers(net))
        if not steps:
            raise UnsupportedError(
                "latency: no layer of this file is a convolution or a product with constant weights that the engine "
                "runs; there is nothing to tabulate"
            )
        self.isa = dense.isa
        self.inputs = {name: tuple(step["input"]) for name, (_, step) in steps.items()}
        self.batch = next(iter(self.inputs.values()))[0]
        # Where layers take least their sum errs least: one per cent of a dense net is more than what surrounds it.
        sparse = _session(patterned.pruned(net, ANY, DENSITIES[-1]))
        together = sum(us for us, _ in self._steps(sparse, patterned.layers(net)).values())
        self.rest_us = max(clock.timed(sparse).us - together, 0.0)
        self.nets = dict.fromkeys(bits[:1], net)
        if len(bits) > 1:
            self._quantize(model, dense)
        self._dense: dict[str, float] | None = None
        self._side: dict[str, float] | None = None

    def _quantize(self, model: bytes, session: InferenceSession) -> None:
        rng = np.random.default_rng(0)
        feeds = [{n.name: draw(n, 1, rng) for n in session.get_inputs()} for _ in range(_EXAMPLES)]
        try:
            self.nets[8] = patterned.parsed(quantized.static_int8(model, feeds))
        except peers.Unavailable as e:
            self.notes.append(f"no rows of 8 bits: {e}")

    def rows(self, pattern: str, density: float, bits: int) -> list[Row]:
        """One point."""
        if pattern == CHANNELS:
            return self._narrow(density)
        if bits not in self.nets:
            return []
        net = self.nets[bits]
        session = _session(patterned.pruned(net, pattern, density))
        layers = {x.name: x for x in patterned.layers(net)}
        steps = {k: v for k, v in self._steps(session, list(layers.values())).items() if k in self.inputs}
        together = sum(us for us, _ in steps.values())
        scale = max(clock.timed(session, _RUNS, _TURNS).us - self.rest_us, 0.5 * together) / together
        return [
            _row(layers[name], pattern, density, bits, scale * us, step["packed_nbytes"])
            for name, (us, step) in steps.items()
        ]

    def _narrow(self, share: float) -> list[Row]:
        """The layers side by side at a share of their channels, as the ratio to their full width there."""
        if not self.plain:
            return []
        if self._dense is None or self._side is None:
            self._dense = {r.layer: r.us for r in self.rows(ANY, 1.0, 32)}
            self._side = {name: us for name, (us, _) in self._side_by_side(1.0).items()}
        layers, rows = {x.name: x for x in patterned.layers(self.net)}, []
        for name, (us, step) in self._side_by_side(share).items():
            if whole := self._side.get(name):
                us *= self._dense[name] / whole
                rows.append(_row(layers[name], CHANNELS, share, 32, us, step["packed_nbytes"]))
        return rows

    def _side_by_side(self, share: float) -> dict[str, tuple[float, dict[str, Any]]]:
        file, named = patterned.side_by_side(self.net, self.inputs, share)
        return self._steps(_session(file), [replace(x, node=i) for i, x in _placed(file, named).items()])

    def _steps(
        self, session: InferenceSession, layers: Sequence[patterned.Layer]
    ) -> dict[str, tuple[float, dict[str, Any]]]:
        """By layer: microseconds of all steps that belong to its node, and the step that holds its weight."""
        if session.coverage["handed_over"]:
            self.notes = [*dict.fromkeys([*self.notes, "parts that ONNX Runtime computes have no rows"])]
        by_node = {x.node: x for x in layers}
        found: dict[str, tuple[float, dict[str, Any]]] = {}
        for _ in range(_PASSES):
            once: dict[str, tuple[float, dict[str, Any]]] = {}
            for step in session.explain(1, _REPEATS):
                layer = by_node.get(step["layer"])
                if layer is None or step["time_us"] is None:
                    continue
                us, known = once.get(layer.name, (0.0, step))
                once[layer.name] = (us + step["time_us"], step if step["n_weights"] else known)
            for name, (us, step) in once.items():
                if step["n_weights"] and (name not in found or us < found[name][0]):
                    found[name] = (us, step)
        return found


def _placed(file: bytes, named: dict[str, patterned.Layer]) -> dict[int, patterned.Layer]:
    """The layers of `side_by_side` by the number of their node in its file."""
    nodes = patterned.parsed(file).graph.node
    return {i: named[n.name] for i, n in enumerate(nodes) if n.name in named}


def _session(model: bytes) -> InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)  # told in the notes
        return InferenceSession(model, threads=_THREADS, tune="off")


def _row(layer: patterned.Layer, pattern: str, density: float, bits: int, us: float, nbytes: float) -> Row:
    return Row(layer.name, layer.op, layer.shape, pattern, density, bits, round(us, 4), float(nbytes))


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


def _key(digest: str) -> str:
    return hashlib.sha256(f"{digest} {plans.machine()} {_THREADS} {latency.SCHEMA}".encode()).hexdigest()[:32]


def _kept(path: Path) -> Table | None:
    with suppress(FormatError):
        return latency.read(path) if path.is_file() else None
    warnings.warn(f"{path}: not readable, ignored; layers are timed again", stacklevel=3)
    return None
