"""report.json: what is accepted, what is refused and how it is said, and that writing is all or nothing."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_sample as sample
from rich.console import Console

from secateur.errors import EnvironmentFailure, FormatError, UsageError
from secateur.report import html, records, tables


@pytest.mark.parametrize("make", [sample.lenet5, sample.deep, sample.minimal])
def test_real_records_pass_unchanged_and_round_trip(make, tmp_path: Path) -> None:
    record = make()
    before = copy.deepcopy(record)
    assert records.check(record) is record
    assert record == before
    path = records.write(tmp_path, record)
    assert records.read(tmp_path) == records.read(path) == record
    assert path.read_text("utf-8").endswith("}\n")


def _set(record: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    at: Any = record
    for key in parents:
        at = at[key]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", KeyError, "has no 'schema'"),
        ("schema", 2, "schema 2, this Secateur reads up to 1; use a newer version"),
        ("schema", "1", "schema is '1'; a whole number from 1 is needed"),
        ("schema", True, "schema is True"),
        ("schema", 0, "schema is 0"),
        ("layers", KeyError, "key 'layers' is missing"),
        ("budget", None, "budget is None; a list is needed"),
        ("layers", {}, "layers is {}; a list is needed"),
        ("layers", None, "layers is None; a list is needed"),
        ("stages", None, "stages is None; a list is needed"),
        ("compressed/metric/difference_std_error", "x", r"compressed\.metric\.difference_std_error is 'x'"),
        ("terms/0/level", {}, r"terms\[0\]\.level is \{\}; a level"),
        ("terms/1/level", [3, "x"], r"terms\[1\]\.level is \[3, 'x'\]"),
        ("terms/0/with", "topk", r"terms\[0\]\.with is 'topk'; a set as in a recipe is needed"),
        ("terms/0/place", "fc1", r"terms\[0\]\.place is 'fc1'; an object is needed"),
        ("terms/0/n_cuts", -1, r"terms\[0\]\.n_cuts is -1"),
        ("left_out", [{"name": "pos"}], r"left_out\[0\]\.shape is missing"),
        ("absent", [3], r"absent\[0\] is 3; text is needed"),
        ("coverage", {"dense": 3}, r"coverage\.dense is 3; an object is needed"),
        ("coverage", {"dense": {"n_nodes": 1}}, r"coverage\.dense\.n_engine is missing"),
        ("layers/1", [], r"layers\[1\] is \[\]; an object is needed"),
        ("layers/2/nnz", "x", r"layers\[2\]\.nnz is 'x'; a whole number >= 0 is needed"),
        ("layers/2/nnz", -1, r"layers\[2\]\.nnz is -1"),
        ("layers/2/nnz", 1.5, r"layers\[2\]\.nnz is 1\.5"),
        ("layers/2/nnz", True, r"layers\[2\]\.nnz is True"),
        ("layers/2/nnz", 10**400, r"layers\[2\]\.nnz is 1000"),
        ("layers/0/name", None, r"layers\[0\]\.name is missing; text is needed"),
        ("layers/0/shape", [5e-324], r"layers\[0\]\.shape is .*; a list of whole numbers is needed"),
        ("compressed/metric/difference_std_error", "x", r"difference_std_error is 'x'; a finite number >= 0 is needed"),
        ("layers/0/shape", [1, "a"], r"layers\[0\]\.shape is .*; a list of whole numbers is needed"),
        ("dense", None, "dense is None; an object is needed"),
        ("one_shot", 3, "one_shot is 3"),
        ("compressed/metric", "99 %", r"compressed\.metric is '99 %'"),
        ("compressed/metric/value", float("nan"), r"compressed\.metric\.value is nan; a finite number is needed"),
        ("compressed/latency_ms/engine", 3.0, r"latency_ms\.engine: an object with a median is needed"),
        ("compressed/latency_ms/engine/median", None, r"latency_ms\.engine\.median is missing"),
        ("dense/nbytes", float("inf"), r"dense\.nbytes is inf"),
        ("verify/tolerance", -1, r"verify\.tolerance is -1; a finite number >= 0 is needed"),
        ("budget/0/met", "yes", r"budget\[0\]\.met is 'yes'; true, false or predicted is needed"),
        ("history/3/loss", float("nan"), r"history\[3\]\.loss is nan"),
        ("history/3/loss", [1], r"history\[3\]\.loss is \[1\]"),
        ("history/3", 1, r"history\[3\] is 1"),
        ("notes", "a note", "notes is 'a note'; a list is needed"),
        ("versions/torch", 2, r"versions\.torch is 2; text is needed"),
        ("cpu", "Xeon", "cpu is 'Xeon'; an object is needed"),
        ("seed", "0", "seed is '0'"),
    ],
)
def test_wrong_keys_are_named(path: str, value: Any, message: str) -> None:
    record = sample.lenet5()
    _set(record, path, value)
    if path == "notes":
        record["notes"] = value
    with pytest.raises(FormatError, match=message):
        records.check(record)


def _paths(value: Any, at: str = "") -> Iterator[str]:
    """Every place in a record; of a list, its first two items."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inside:
        yield f"{at}{key}"
        yield from _paths(item, f"{at}{key}/")


@pytest.mark.parametrize("make", [sample.lenet5, sample.deep])
@pytest.mark.parametrize("junk", [None, {}, -1, "x"])
def test_a_record_with_any_field_replaced_is_refused_or_shown(make, junk: Any) -> None:
    for path in _paths(make()):
        record = make()
        _set(record, path, junk)
        try:
            records.check(record)
        except FormatError:
            continue
        try:
            html.render(record)
            tables.print_summary(record, Console(file=io.StringIO(), width=150))
        except Exception as error:
            raise AssertionError(f"{path} = {junk!r} passes the check and is not shown") from error


def test_unknown_keys_are_kept() -> None:
    record = sample.lenet5()
    record["layers"][0]["colour"] = {"any": "thing"}
    assert records.check(record)["layers"][0]["colour"] == {"any": "thing"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe{}", "not readable as JSON"),
        (b"[1]", "not a report"),
        (b'{"schema": 1, "seed": NaN}', "NaN is not JSON"),
        (b"[" * 200_000, "not readable as JSON"),
        (b'{"schema": 1' + b"9" * 5000 + b"}", "not readable as JSON|schema"),
    ],
)
def test_damaged_files_are_one_clear_error(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "report.json").write_bytes(raw)
    with pytest.raises(FormatError, match=message):
        records.read(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = records.dumps(sample.minimal()).encode()
    for n in range(len(raw) - 2):
        (tmp_path / "report.json").write_bytes(raw[:n])
        with pytest.raises(FormatError):
            records.read(tmp_path)


def test_missing_and_oversized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="name the folder of a finished run"):
        records.read(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(sample.minimal()))
    monkeypatch.setattr(records, "_LIMIT", 10)
    with pytest.raises(FormatError, match="larger than 10 bytes"):
        records.read(tmp_path)


def test_an_invalid_record_is_not_written(tmp_path: Path) -> None:
    good = records.write(tmp_path, sample.minimal()).read_bytes()
    with pytest.raises(FormatError):
        records.write(tmp_path, {"schema": 1})
    assert (tmp_path / "report.json").read_bytes() == good
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(tmp_path, sample.minimal())
    before = (tmp_path / "report.json").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="the disk is full"):
        records.write(tmp_path, sample.lenet5())
    assert (tmp_path / "report.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_missing_folder_is_an_environment_failure(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        records.write(tmp_path / "absent", sample.minimal())


def test_written_files_have_the_users_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    path = records.write(tmp_path, sample.minimal())
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_no_damaged_value_ends_in_another_error(tmp_path: Path) -> None:
    """Every value of a record, in turn, replaced by what damage or another writer may leave there."""
    odd = [None, 0, -1, 1.5, True, "", "x" * 300, [], {}, [[]], {"a": 1}, 2**62, 1e308, 5e-324, "\ud800", KeyError]
    rng = random.Random(0)
    base = sample.lenet5()
    for key in ("history", "frontier", "sections", "layers"):
        base[key] = base.get(key, [])[:2]
    for place in _places(base):
        record = copy.deepcopy(base)
        value = rng.choice(odd)
        _set(record, place, value)
        path = tmp_path / "report.json"
        path.write_text(json.dumps(record))
        try:
            found = records.read(path)
            with contextlib.redirect_stdout(io.StringIO()):
                tables.print_summary(found)
        except FormatError:
            continue
        except Exception as e:
            raise AssertionError(f"{place} = {value!r:.40}") from e


def _places(value: Any, at: str = "") -> Iterator[str]:
    if at:
        yield at.lstrip("/")
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, below in items:
        yield from _places(below, f"{at}/{key}")


def test_a_page_of_a_record_without_figures_of_the_compressed_net() -> None:
    record = sample.lenet5()
    record["compressed"] = {}
    assert "</html>" in html.render(record)
