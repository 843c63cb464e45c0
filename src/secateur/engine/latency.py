"""What the layers of a net take on a machine: a table of times, read, written and interpolated.

`tabulate.py` makes it. As JSON: {schema, cpu, isa, threads, batch, engine, net, rows: [{layer, op, shape, pattern,
density, bits, us, nbytes}], rest_us}. `shape` is the weight's; `pattern` as `Packing.pattern` says it, with `channels`
a layer at the share `density` of its outputs and inputs; `bits` 32, or 8 where the layer computes in integers; `nbytes`
the packed weight's in memory; `rest_us` what surrounds the layers.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from secateur.engine import timings
from secateur.errors import FormatError, UsageError
from secateur.limits import quoted
from secateur.shell import saving

SCHEMA = 1
LIMIT = 64_000_000  # bytes of a file
CHANNELS, ANY = "channels", "any"
What = Literal["us", "nbytes"]
_PATTERN = r"any|channels|:[1-9]\d{0,2}|[1-9]\d{0,3}x[1-9]\d{0,3}"


@dataclass(frozen=True)
class Row:
    """One layer at one pattern, density and width of values: microseconds, and bytes of its packed weight."""

    layer: str
    op: str
    shape: tuple[int, ...]
    pattern: str
    density: float
    bits: int
    us: float
    nbytes: float


@dataclass(frozen=True)
class Layer:
    """The rows of one layer as curves over density.

    Attributes:
        n: weights of the layer at full width.
        curves: by pattern and bits: densities, ascending, and microseconds and bytes there.
    """

    n: int
    curves: Mapping[tuple[str, int], tuple[Sequence[float], Mapping[What, Sequence[float]]]]

    def cost(self, what: What, share: float, density: float, pattern: str = ANY, bits: int = 32) -> float:
        """Microseconds or bytes.

        Linear between the points, and never more than a denser layer takes. Of patterns that contain what is asked the
        cheapest counts; bits that the table lacks are priced as 32.

        Args:
            share: of the layer's weights that are there at all; 1 = full width. density: of these that are not zero.
        """
        bits = bits if (ANY, bits) in self.curves else 32 if (ANY, 32) in self.curves else 8
        found = min(_between(density, *self._curve(what, p, bits)) for p in self._containing(pattern, bits))
        return found if share >= 1 - 1e-9 else found * self._ratio(what, share)

    @cached_property
    def _known(self) -> dict[Any, Any]:
        """What `_curve` and `_containing` have answered: an allocator asks thousands of times."""
        return {}

    def _containing(self, pattern: str, bits: int) -> list[str]:
        if (pattern, bits) not in self._known:
            self._known[pattern, bits] = [p for p, b in self.curves if b == bits and _holds(p, pattern)]
        found: list[str] = self._known[pattern, bits]
        return found

    def _curve(self, what: What, pattern: str, bits: int) -> tuple[Sequence[float], Sequence[float]]:
        """Densities up to 1 and what is taken there, never more than at a larger one.

        Beyond the densest point of a pattern the layer is on its way to dense. `channels`: shares of outputs and
        inputs, down to none.
        """
        key = what, pattern, bits
        if key not in self._known:
            at, values = self.curves[pattern, bits]
            us = list(values[what])
            if at[-1] < 1:
                at, us = [*at, 1.0], [*us, self._curve(what, ANY, bits)[1][-1]]
            us = np.minimum.accumulate(us[::-1])[::-1].tolist()
            self._known[key] = ([0.0, *at], [us[0] * at[0], *us]) if pattern == CHANNELS else (at, us)
        found: tuple[Sequence[float], Sequence[float]] = self._known[key]
        return found

    def _ratio(self, what: What, share: float) -> float:
        """A narrower layer to the whole one, both dense; the share itself where that was not timed."""
        if not {(CHANNELS, 32), (ANY, 32)} <= self.curves.keys():
            return share
        # Outputs and inputs go together: at the share d of both are d^2 of the weights.
        at, us = self._curve(what, CHANNELS, 32)
        return _between(math.sqrt(share), at, us) / us[-1] if us[-1] > 0 else share


def _between(x: float, at: Sequence[float], values: Sequence[float]) -> float:
    """Linear between the points, flat beyond them."""
    i = bisect_right(at, x)
    if i == 0 or i == len(at):
        return values[0 if i == 0 else -1]
    part = (x - at[i - 1]) / (at[i] - at[i - 1])
    return values[i - 1] + part * (values[i] - values[i - 1])


def _holds(known: str, asked: str) -> bool:
    """Is every matrix of the pattern `asked` one of `known`? A block of 8x1 is two of 4x1."""
    if known in (ANY, asked):
        return True
    a, b = re.fullmatch(r"(\d+)x(\d+)", known), re.fullmatch(r"(\d+)x(\d+)", asked)
    return bool(a and b and int(b[1]) % int(a[1]) == 0 and int(b[2]) % int(a[2]) == 0)


@dataclass(frozen=True)
class Table:
    """A net's layers on a machine.

    Attributes:
        net: digest of the graph that it was made of.
        rest_us: one call of the dense net less its layers.
        notes: what could not be timed.
    """

    cpu: str
    isa: str
    threads: int
    batch: int
    engine: str
    net: str
    rows: tuple[Row, ...]
    rest_us: float
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """By the name of the weight; integers of an axis that a pattern does not divide have no row."""
        grouped: dict[str, dict[tuple[str, int], dict[float, Row]]] = {}
        sizes = {}
        for r in self.rows:
            grouped.setdefault(r.layer, {}).setdefault((r.pattern, r.bits), {})[r.density] = r
            sizes[r.layer] = math.prod(r.shape)
        return {
            name: Layer(sizes[name], {key: _curve(rows) for key, rows in of.items()}) for name, of in grouped.items()
        }

    @property
    def points(self) -> set[tuple[str, float, int]]:
        """What was timed: pattern, density (of channels the share), bits."""
        return {(r.pattern, r.density, r.bits) for r in self.rows}

    def json(self) -> dict[str, Any]:
        """As it is written."""
        body = asdict(self) | {"schema": SCHEMA, "rows": [asdict(r) for r in self.rows]}
        return {k: body[k] for k in ("schema", *(k for k in body if k != "schema"))}


def _curve(rows: Mapping[float, Row]) -> tuple[list[float], dict[What, list[float]]]:
    at = sorted(rows)
    return at, {"us": [rows[d].us for d in at], "nbytes": [rows[d].nbytes for d in at]}


def write(path: Path, table: Table) -> None:
    """Whole or not at all. Raises EnvironmentFailure, UsageError as `saving.write_bytes`."""
    saving.write_bytes(path, saving.to_json(table.json()))


def read(path: str | Path) -> Table:
    """The table in a file, of this machine or another; checked as a stranger's.

    Raises:
        UsageError: no such file. FormatError: not a table, or a damaged one.
    """
    try:
        with open(path, "rb") as f:
            data = f.read(LIMIT + 1)
    except OSError as e:
        raise UsageError(
            f"{path}: cannot be read ({e.strerror}); give what `secateur latency NET -o table.json` wrote"
        ) from None
    try:
        if len(data) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        return parse(timings.parse(data))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise FormatError(
            f"{path}: not a latency table, or a damaged one ({type(e).__name__}: {e}); make it again with "
            "`secateur latency NET -o table.json`"
        ) from None


def parse(found: Any) -> Table:
    """The table in a JSON value. Raises ValueError, KeyError, TypeError, AttributeError."""
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {quoted(found['schema'])}; known: {SCHEMA}")
    rows = tuple(_row(r) for r in found["rows"])
    dense = {(r.layer, r.bits) for r in rows if (r.pattern, r.density) == (ANY, 1.0)}
    if not rows or any((r.layer, r.bits) not in dense for r in rows):
        raise ValueError("a layer without its dense row")
    return Table(
        **{k: _typed(found[k], str) for k in ("cpu", "isa", "engine")},
        **{k: _typed(found[k], int) for k in ("threads", "batch")},
        net=_typed(found.get("net", ""), str),
        rows=rows,
        rest_us=_time(found["rest_us"]),
        notes=tuple(_typed(n, str) for n in found.get("notes", ())),
    )


def _row(r: Mapping[str, Any]) -> Row:
    shape = tuple(_typed(n, int) for n in r["shape"])
    density, bits, pattern = r["density"], r["bits"], _typed(r["pattern"], str)
    if not shape or len(shape) > 8 or any(not 0 < n < 2**31 for n in shape):
        raise ValueError("a shape that is none")
    if type(density) not in (int, float) or not 0 < density <= 1:
        raise ValueError(f"a density of {quoted(density)}")
    if bits not in (8, 32) or not re.fullmatch(_PATTERN, pattern):
        raise ValueError(f"pattern {quoted(pattern)}, bits {quoted(bits)}")
    layer, op = _typed(r["layer"], str), _typed(r["op"], str)
    return Row(layer, op, shape, pattern, float(density), bits, _time(r["us"]), _time(r.get("nbytes", 0.0)))


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise ValueError(f"{quoted(value)}, where a number >= 0 belongs")
    return float(value)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{quoted(value)}, where {kind.__name__} belongs")
    return value
