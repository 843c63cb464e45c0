"""What the layers of a net take on a machine: a table of times, read, written and interpolated.

`tabulate.py` makes it. As JSON: {schema, cpu, isa, threads, batch, engine, net, rows: [{layer, op, shape, pattern,
density, bits, width, us, nbytes}], rest_us: {"32": ..., "8": ...}}. `pattern` as `Packing.pattern` says it; `bits` 32,
or 8 where the net computes in integers; `width` the share of its channels that the net has, `shape` the weight's there;
`nbytes` the packed weight's in memory; `rest_us` what surrounds the layers, by bits.
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

from secateur.engine import timings
from secateur.errors import FormatError, UsageError
from secateur.limits import quoted
from secateur.shell import saving

SCHEMA = 2
LIMIT = 64_000_000  # bytes of a file
CHANNELS, ANY = "channels", "any"
What = Literal["us", "nbytes"]
_PATTERN = r"any|:[1-9]\d{0,2}|[1-9]\d{0,3}x[1-9]\d{0,3}"


@dataclass(frozen=True)
class Row:
    """One layer at one point: microseconds, and bytes of its packed weight."""

    layer: str
    op: str
    shape: tuple[int, ...]
    pattern: str
    density: float
    bits: int
    us: float
    nbytes: float
    width: float = 1.0


_Curve = tuple[Sequence[float], Mapping[What, Sequence[float]]]  # densities, ascending, and what is taken there


@dataclass(frozen=True)
class Layer:
    """The rows of one layer as curves over density.

    Attributes:
        n: weights of the layer at full width.
        curves: by pattern and bits, at full width.
        narrow: the same of narrower nets, by the share of the layer's weights that these have, ascending.
    """

    n: int
    curves: Mapping[tuple[str, int], _Curve]
    narrow: Mapping[float, Mapping[tuple[str, int], _Curve]] = field(default_factory=dict)

    def cost(self, what: What, share: float, density: float, pattern: str = ANY, bits: int = 32) -> float:
        """Microseconds or bytes.

        Linear between the points. Of patterns that contain what is asked the cheapest counts; bits that the table lacks
        are priced as 32. Between widths linear in the number of weights; without rows of narrower nets in proportion to
        it. A sparser layer may take longer than a denser one: the engine chooses kernels by estimates.

        Args:
            share: of the layer's weights that are there at all; 1 = full width. density: of these that are not zero.
        """
        bits = bits if (ANY, bits) in self.curves else 32 if (ANY, 32) in self.curves else 8
        whole = self._at(what, 1.0, density, pattern, bits)
        if share >= 1 - 1e-9:
            return whole
        known = [s for s, curves in self.narrow.items() if (ANY, bits) in curves]
        others = {b for curves in self.narrow.values() for _, b in curves}
        if not known and others:
            dense = self._at(what, 1.0, 1.0, ANY, min(others))
            return whole * self.cost(what, share, 1.0, ANY, min(others)) / dense if dense > 0 else 0.0
        values = [self._at(what, s, density, pattern, bits) for s in known]
        # With the last weight the layer itself is gone, and what it takes beside them.
        none = values[0] * math.sqrt(known[0]) if known else 0.0
        return _between(share, [0.0, *known, 1.0], [none, *values, whole])

    @cached_property
    def _known(self) -> dict[Any, Any]:
        """What `_curve` has answered: an allocator asks thousands of times."""
        return {}

    def _at(self, what: What, share: float, density: float, pattern: str, bits: int) -> float:
        """At one of the table's widths."""
        key = what, share, pattern, bits
        if key not in self._known:
            curves = self.curves if share == 1.0 else self.narrow[share]
            names = [p for p, b in curves if b == bits and _holds(p, pattern)]
            self._known[key] = [_to_dense(curves, what, p, bits) for p in names]
        return min(_between(density, *curve) for curve in self._known[key])


def _to_dense(
    curves: Mapping[tuple[str, int], _Curve], what: What, pattern: str, bits: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Densities up to 1 and what is taken there: beyond the densest point of a pattern on the way to dense."""
    at, values = curves[pattern, bits]
    found = list(values[what])
    if at[-1] < 1:
        at, found = [*at, 1.0], [*found, curves[ANY, bits][1][what][-1]]
    return at, found


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
        rest_us: by bits, one call of the net less its layers.
        notes: what could not be timed.
    """

    cpu: str
    isa: str
    threads: int
    batch: int
    engine: str
    net: str
    rows: tuple[Row, ...]
    rest_us: Mapping[int, float]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """By the name of the weight; integers of an axis that a pattern does not divide have no row."""
        grouped: dict[str, dict[float, dict[tuple[str, int], dict[float, Row]]]] = {}
        for r in self.rows:
            grouped.setdefault(r.layer, {}).setdefault(r.width, {}).setdefault((r.pattern, r.bits), {})[r.density] = r
        return {name: _layer(of) for name, of in grouped.items()}

    def rest(self, bits: int) -> float:
        """Microseconds of what surrounds the layers; of bits that the table lacks those of the others."""
        return self.rest_us.get(bits, max(self.rest_us.values(), default=0.0))

    @property
    def points(self) -> set[tuple[str, float, int, float]]:
        """What was timed: pattern, density, bits, width."""
        return {(r.pattern, r.density, r.bits, r.width) for r in self.rows}

    def json(self) -> dict[str, Any]:
        """As it is written."""
        rest = {str(bits): us for bits, us in self.rest_us.items()}
        body = asdict(self) | {"schema": SCHEMA, "rows": [asdict(r) for r in self.rows], "rest_us": rest}
        return {k: body[k] for k in ("schema", *(k for k in body if k != "schema"))}


def _layer(widths: Mapping[float, Mapping[tuple[str, int], Mapping[float, Row]]]) -> Layer:
    curves = {width: {key: _curve(rows) for key, rows in of.items()} for width, of in widths.items()}
    sizes = {width: math.prod(next(iter(next(iter(of.values())).values())).shape) for width, of in widths.items()}
    n = sizes[1.0]
    return Layer(n, curves[1.0], {sizes[w] / n: curves[w] for w in sorted(sizes) if sizes[w] < n})


def _curve(rows: Mapping[float, Row]) -> _Curve:
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
    dense = {(r.layer, r.bits, r.width) for r in rows if (r.pattern, r.density) == (ANY, 1.0)}
    if not rows or any((r.layer, r.bits, w) not in dense for r in rows for w in (r.width, 1.0)):
        raise ValueError("a layer without its dense row")
    return Table(
        **{k: _typed(found[k], str) for k in ("cpu", "isa", "engine")},
        **{k: _typed(found[k], int) for k in ("threads", "batch")},
        net=_typed(found.get("net", ""), str),
        rows=rows,
        rest_us={_bits(int(bits)): _time(us) for bits, us in found["rest_us"].items()},
        notes=tuple(_typed(n, str) for n in found.get("notes", ())),
    )


def _row(r: Mapping[str, Any]) -> Row:
    shape = tuple(_typed(n, int) for n in r["shape"])
    density, width, pattern = r["density"], r.get("width", 1.0), _typed(r["pattern"], str)
    if not shape or len(shape) > 8 or any(not 0 < n < 2**31 for n in shape):
        raise ValueError("a shape that is none")
    for share in (density, width):
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise ValueError(f"a density or width of {quoted(share)}")
    if not re.fullmatch(_PATTERN, pattern):
        raise ValueError(f"pattern {quoted(pattern)}")
    of = _typed(r["layer"], str), _typed(r["op"], str), shape, pattern, float(density), _bits(r["bits"])
    return Row(*of, _time(r["us"]), _time(r.get("nbytes", 0.0)), float(width))


def _bits(value: Any) -> int:
    if value not in (8, 32):
        raise ValueError(f"bits {quoted(value)}")
    return int(value)


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise ValueError(f"{quoted(value)}, where a number >= 0 belongs")
    return float(value)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{quoted(value)}, where {kind.__name__} belongs")
    return value
