"""What became of a file, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secateur.report import words
from secateur.shell.showing import table

if TYPE_CHECKING:
    from rich.console import Console


def show(report: Mapping[str, Any], console: Console) -> None:
    """Every layer and what it became; bytes, differences of the outputs, times."""
    rows = [
        [r["name"], r["op"], "x".join(str(d) for d in r["shape"] or []) or "-", r["arithmetic"], r["why"]]
        for r in report["layers"]
    ]
    integer = sum(r["arithmetic"] == "int8" for r in report["layers"])
    title = f"{integer} of {len(rows)} layers in int8, {len(report['activations'])} scales of activations"
    said = [_sizes(report), *(_output(name, o) for name, o in report["outputs"].items()), *_times(report)]
    console.print(title, markup=False, highlight=False)
    console.print(table("", ["layer", "op", "weight", "runs in", "why"], rows))
    for line in said:  # a caption would be as narrow as the table
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_pruned(report: Mapping[str, Any], console: Console) -> None:
    """Every layer and what is left of it; the budget, bytes, differences of the outputs."""
    columns = ["layer", "op", "weight", "weights left", "of all", "density", "runs in"]
    rows = [
        [
            *(r["name"], r["op"], "x".join(str(d) for d in r["shape"] or []) or "-", r["nnz"], r["n_weights"]),
            f"{r['nnz'] / r['n_weights']:.4f}" if r["n_weights"] else "-",
            r["arithmetic"] if report["int8"] else "float32",
        ]
        for r in report["layers"]
    ]
    b, sizes = report["budget"], report["nbytes"]
    console.print(table("", columns, rows))
    said = [
        f"budget: {b['kind']} {b['value']:,} of {b['limit']:,.12g} allowed",
        f"{report['nnz']:,} of {report['n_weights']:,} weights left, {report['macs']:,} multiply-adds",
        f"ONNX file before: {words.nbytes(sizes['float32'])}; model.onnx: {words.nbytes(sizes['onnx'])}; "
        f"model.sct: {words.nbytes(sizes['sct'])} ({sizes['float32'] / sizes['sct']:.1f}x smaller)",
        *(_output(name, o) for name, o in report["outputs"].items()),
    ]
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _sizes(report: Mapping[str, Any]) -> str:
    before, after = report["nbytes"]["float32"], report["nbytes"]["int8"]
    ratio = f"{before / after:.1f}x smaller" if after <= before else f"{after / before:.1f}x larger"
    return f"ONNX file: {words.nbytes(before)} -> {words.nbytes(after)} ({ratio})"


def _output(name: str, o: Mapping[str, Any]) -> str:
    """How far an output is from the float32 network's."""
    relative = "-" if o["relative_l2"] is None else f"{o['relative_l2']:.2%} of its norm"
    said = f"{name}: off by {relative}, at most {o['max_abs']:.3g} (largest value {o['max_abs_float']:.3g})"
    if o["argmax_of"]:
        said += f"; the largest score is the same one for {o['argmax_agree']} of {o['argmax_of']} examples"
    return said


def _times(report: Mapping[str, Any]) -> list[str]:
    ms = report["latency_ms"]
    if ms is None:
        return []
    before, after = words.milliseconds(ms["float32"]), words.milliseconds(ms["int8"])
    return [f"one call in the engine, one thread: {before} -> {after} ({ms['float32'] / ms['int8']:.2f}x faster)"]
