"""`report.json`, schema 1: built, written, read and checked. A plain dict everywhere, so that anything can read it.

Required: `model, data, seed, versions, cpu, dense, compressed, budget, layers, verify, stages` (DESIGN 3.3);
`one_shot` may be null where no baseline was run. Optional and shown where present: `date`, `recipe` (YAML text),
`one_shot_raw` and `control` (nets like `dense`), `terms` (what was asked of each site, at which level: what `verify`
holds the files to), `left_out` (weights on which no constraint can act), `absent` (tensors that the file holds only in
what was computed from them), `coverage` (which nodes ONNX Runtime had to run), `sections` (bytes per part of the packed
file), `levels` (of a net whose levels can be changed at run time: each as `compressed`, with its limits), `history`
(training curves), `frontier` (sizes a search went through, with their accuracy drop), `outcome`,
`notes` (sentences). Unknown keys are kept and ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from secateur.budget import kinds
from secateur.errors import FormatError, UsageError
from secateur.shell import saving

SCHEMA = 1
NAME = "report.json"
_LIMIT = 1 << 28  # bytes; a long history of a large net stays far below

Record = dict[str, Any]
# What a value must be: checked by name, said in the message.
_KINDS: dict[str, tuple[str, Any]] = {
    "text": ("text", lambda v: isinstance(v, str)),
    "count": ("a whole number >= 0", lambda v: is_number(v) and v >= 0 and float(v).is_integer()),
    "number": ("a finite number", lambda v: is_number(v)),
    "amount": ("a finite number >= 0", lambda v: is_number(v) and v >= 0),
    "flag": ("true or false", lambda v: isinstance(v, bool)),
    "answer": ("true, false or predicted", lambda v: isinstance(v, bool) or v == "predicted"),
    "set": ("a set as in a recipe", lambda v: isinstance(v, dict | list)),
    "mapping": ("an object", lambda v: isinstance(v, dict)),
    "level": ("a level: a number, or a list of them", lambda v: _is_level(v)),
    "axes": (
        "a list of sizes and names",
        lambda v: isinstance(v, list) and all(s is None or isinstance(s, str) or is_number(s) for s in v),
    ),
    "shape": (
        "a list of whole numbers",
        lambda v: isinstance(v, list) and all(_is_size(s) for s in v),
    ),
}
# key -> kind; a trailing ? = may be absent or null.
# What every report says of a net. Other kinds of sizes, which an outside meter may add, are amounts.
NET = {"params": "count?", "nnz": "count?", "macs": "count?", "nbytes": "count?", "weight_bits": "amount?"}
_METRIC = {
    "name": "text",
    "value": "number?",
    "loss": "number?",
    "calibration_error": "amount?",
    "n_examples": "count?",
    "std_error": "amount?",
    "difference_std_error": "amount?",
    "split": "text?",
    "higher_is_better": "flag?",
}
_LATENCY = {"median": "amount", "p10": "amount?", "p90": "amount?"}
_BUDGET = {"name": "text", "asked": "number?", "reached": "number?", "met": "answer?"}
_READ = {"predicted": "number?", "margin": "amount?", "runs": "count?", "cpu": "text?"}
_LAYER = {
    "name": "text",
    "op": "text?",
    "shape": "shape",
    "nnz": "count",
    "bits": "amount?",
    "constraint": "text?",
    "layout": "text?",
    "codec": "text?",
    "nbytes": "count?",
    "bound_nbytes": "amount?",
    "macs": "count?",
    "macs_dense": "count?",
    "kernel": "text?",
    "latency_ms": "amount?",
    "left_out": "text?",
    "note": "text?",
}
_TERM = {
    "site": "text",
    "level": "level?",
    "given": "flag",
    "n_cuts": "count?",
    "with": "set?",
    "place": "mapping?",
}
_LEFT_OUT = {"name": "text", "shape": "shape", "n": "count", "share": "amount", "why": "text"}
_COVERAGE = {"n_nodes": "count", "n_engine": "count"}
_HANDED = {"node": "text", "op": "text", "why": "text"}
_STEP = {"name": "text", "op": "text", "kernel": "text?", "why": "text?", "time_us": "amount?"}
_INPUT = {"name": "text", "type": "text", "shape": "axes"}
_SECTION = {"name": "text", "kind": "text?", "nbytes": "count"}
_STAGE = {"name": "text", "seconds": "amount?"}
_VERIFY = {
    "max_abs_error": "amount?",
    "tolerance": "amount?",
    "agree": "flag?",
    "apart": "amount?",
    "metric_engine": "number?",
    "metric_torch": "number?",
    "metric_onnxruntime": "number?",
}
_REQUIRED = (
    *("model", "data", "seed", "versions", "cpu", "dense", "compressed", "budget", "layers", "verify"),
    "stages",
)
NETS = ("dense", "one_shot_raw", "one_shot", "compressed", "control")


def check(record: Any, subject: str = NAME) -> Record:
    """The record itself, unchanged, if it is of schema 1; else FormatError naming the first wrong key."""
    if not isinstance(record, dict):
        raise FormatError(f"{subject}: not a report (a JSON object is needed, {type(record).__name__} came)")
    schema = record.get("schema", None)
    if schema is None:
        raise FormatError(f"{subject}: has no 'schema'; written by something else than secateur compress?")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise FormatError(f"{subject}: schema is {schema!r:.40}; a whole number from 1 is needed")
    if schema > SCHEMA:
        raise FormatError(f"{subject}: schema {schema}, this Secateur reads up to {SCHEMA}; use a newer version")
    for key in _REQUIRED:
        if key not in record:
            raise FormatError(f"{subject}: key {key!r} is missing")
    for key in ("budget", "layers", "stages"):
        if record[key] is None:
            raise FormatError(f"{subject}: {key} is None; a list is needed")
    _fields(record, {"model": "text", "data": "text", "seed": "count", "date": "text?", "recipe": "text?"}, subject)
    for name, version in _mapping(record, "versions", subject).items():
        _one(version, "text", f"{subject}: versions.{name}")
    cpu = {"name": "text?", "isa": "text?", "threads": "count?", "waiting": "text?"}
    _fields(_mapping(record, "cpu", subject), cpu, f"{subject}: cpu", ".")
    for net in NETS:
        if record.get(net) is not None or net in ("dense", "compressed"):
            _net(record, net, subject)
    for i, row in enumerate(_list(record, "levels", subject)):
        _net({"": row}, "", f"{subject}: levels[{i}]")
        _fields(
            row, {"level": "count", "metric_valid": "number?", "metric_engine": "number?"}, f"{subject}: levels[{i}]"
        )
        _items(row, "budget", _BUDGET, f"{subject}: levels[{i}]")
    _items(record, "budget", _BUDGET | _READ, subject)
    _items(record, "layers", _LAYER, subject)
    _items(record, "terms", _TERM, subject)
    _items(record, "left_out", _LEFT_OUT, subject)
    _items(record, "inputs", _INPUT, subject)
    if record.get("bench") is not None:
        _items(_mapping(record, "bench", subject), "layers", _STEP, f"{subject}: bench")
    if record.get("coverage") is not None:
        coverage = _mapping(record, "coverage", subject)
        for name in coverage:
            covered, where = _mapping(coverage, name, f"{subject}: coverage", "."), f"{subject}: coverage.{name}"
            _fields(covered, _COVERAGE, where, ".")
            _items(covered, "handed_over", _HANDED, where)
    _items(record, "sections", _SECTION, subject)
    _items(record, "stages", _STAGE, subject)
    if record["verify"] is not None:
        _fields(_mapping(record, "verify", subject), _VERIFY, f"{subject}: verify", ".")
    for key in ("history", "frontier"):
        for i, row in enumerate(_list(record, key, subject)):
            _each_number(row, f"{subject}: {key}[{i}]")
    for key in ("notes", "absent"):
        for i, note in enumerate(_list(record, key, subject)):
            _one(note, "text", f"{subject}: {key}[{i}]")
    return record


def read(folder: str | Path) -> Record:
    """The checked record of a run's folder (or of a report.json named directly).

    Raises UsageError (no such folder or file) or FormatError (not JSON, not UTF-8, not schema 1).
    """
    path = Path(folder)
    if path.is_dir():
        path = path / NAME
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name the folder of a finished run") from error
    if len(raw) > _LIMIT:
        raise FormatError(f"{path}: larger than {_LIMIT} bytes, which no report is")
    try:
        record = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        if b"\\ud" in raw.lower():  # half a surrogate pair is a character that no page can hold
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable as JSON ({error})") from error
    return check(record, str(path))


def dumps(record: Record) -> str:
    """The checked record as JSON text: keys in their order, numbers round-trip, a newline at the end."""
    return json.dumps(check(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(folder: str | Path, record: Record) -> Path:
    """Check the record and write it as `folder/report.json`, atomically; the path."""
    path = Path(folder) / NAME
    saving.write_bytes(path, dumps(record).encode("utf-8"))
    return path


def _net(record: Record, name: str, subject: str) -> None:
    net = _mapping(record, name, subject)
    where = f"{subject}: {name}"
    _fields(net, {**dict.fromkeys(kinds.counted(), "amount?"), **NET}, where, ".")
    if net.get("metric") is not None:
        _fields(_mapping(net, "metric", where, "."), _METRIC, f"{where}.metric", ".")
    if net.get("latency_ms") is not None:
        for runtime, times in _mapping(net, "latency_ms", where, ".").items():
            if times is not None:
                if not isinstance(times, dict):
                    raise FormatError(f"{where}.latency_ms.{runtime}: an object with a median is needed")
                _fields(times, _LATENCY, f"{where}.latency_ms.{runtime}", ".")


def _items(record: Mapping[str, Any], key: str, fields: Mapping[str, str], subject: str) -> None:
    for i, item in enumerate(_list(record, key, subject)):
        if not isinstance(item, dict):
            raise FormatError(f"{subject}: {key}[{i}] is {_came(item)}; an object is needed")
        _fields(item, fields, f"{subject}: {key}[{i}]", ".")


def _fields(item: Mapping[str, Any], fields: Mapping[str, str], where: str, joint: str = ": ") -> None:
    for key, kind in fields.items():
        optional = kind.endswith("?")
        if item.get(key) is None:
            if not optional:
                raise FormatError(f"{where}{joint}{key} is missing; {_KINDS[kind][0]} is needed")
            continue
        _one(item[key], kind.rstrip("?"), f"{where}{joint}{key}")


def _one(value: Any, kind: str, where: str) -> None:
    words, accepts = _KINDS[kind]
    if not accepts(value):
        raise FormatError(f"{where} is {_came(value)}; {words} is needed")


def _each_number(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise FormatError(f"{where} is {_came(row)}; an object is needed")
    for key, value in row.items():
        if value is not None and not isinstance(value, str | bool) and not is_number(value):
            raise FormatError(f"{where}.{key} is {_came(value)}; a finite number or text is needed")


def _mapping(item: Mapping[str, Any], key: str, where: str, joint: str = ": ") -> dict[str, Any]:
    value = item.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"{where}{joint}{key} is {_came(value)}; an object is needed")
    return value


def _list(item: Mapping[str, Any], key: str, where: str) -> Iterable[Any]:
    value = item.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise FormatError(f"{where}: {key} is {_came(value)}; a list is needed")
    return value


def is_number(value: Any) -> bool:
    """A finite number of a size that means something, and no flag."""
    # Above 2^63 nothing here is meant, and float() of a longer integer may overflow.
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63 and math.isfinite(value)
    )


def _is_level(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and all(v is None or is_number(v) for v in value))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and is_number(value) and value >= 0


def _came(value: Any) -> str:
    return f"{value!r:.60}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
