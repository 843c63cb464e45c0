"""What the reader of a report does next: load the result, ship it, mend a fallen accuracy; and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from secateur.report import document, words
from secateur.report.advice import advice, is_large
from secateur.shell.importing import ZOO, is_data_path


def section(record: Mapping[str, Any]) -> str:
    """How to load the net in PyTorch, in the engine and in ONNX Runtime, from the folder that the page lies in."""
    parts = [
        ("In PyTorch", _torch(record)),
        ("In Secateur's engine (NumPy only, no torch)", _session(record, "import secateur", "secateur", "model.sct")),
        ("In ONNX Runtime", _session(record, "import onnxruntime", "onnxruntime", "model.onnx")),
    ]
    shown = "".join(f"<h3>{escape(title)}</h3><pre>{escape(code)}</pre>" for title, code in parts)
    shown += f"<h3>Check it again</h3><pre>secateur verify FOLDER{_trust(record)}</pre>"
    if (said := advice(record)) and not is_large(record):  # a large loss has them in the verdict
        shown += f"<h3>If the accuracy is too low</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>"
    hint = "FOLDER is where this page lies, beside model.sct, model.onnx and model.safetensors."
    return document.section("next", "What next", f'<div class="panel next">{shown}</div>', hint)


def left_out(record: Mapping[str, Any]) -> str:
    """The weights on which no constraint can act; nothing where there are none."""
    rows = record.get("left_out") or []
    if not rows:
        return ""
    stored = {layer["name"]: layer for layer in record["layers"]}
    titles = ("Weight", "Shape", "Weights", "Share", "Bytes", "Why")
    head = "".join(f'<th scope="col"{" class=left" if t == "Why" else ""}>{t}</th>' for t in titles)
    lines = []
    for row in rows:
        shape, coded = "×".join(map(str, row["shape"])), (stored.get(row["name"]) or {}).get("nbytes")
        cells = (shape, words.count(row["n"]), words.percent(row["share"]), words.count(coded))
        lines.append(
            f'<tr><th scope="row" class="name">{escape(row["name"])}</th>'
            f'{"".join(f"<td>{c}</td>" for c in cells)}<td class="left">{escape(row["why"])}</td></tr>'
        )
    total = words.percent(sum(row["share"] for row in rows))
    hint = f"No constraint can act on these {total} of all weights; budgets, sizes and counts include them."
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return document.section("left-out", "Left as it was", f'<div class="panel scroll">{table}</div>', hint)


def _torch(record: Mapping[str, Any]) -> str:
    model = str(record["model"])
    if model.startswith(ZOO):
        return 'import secateur\nnet = secateur.load("FOLDER")  # a plain nn.Module in eval mode'
    if ":" in model:
        package, name = model.split(":", 1)
        call = name if name.endswith(")") else f"{name}()"
        name = name.partition("(")[0]
        return f'import secateur\nfrom {package} import {name}\nnet = secateur.load("FOLDER", model={call})'
    return f'import secateur\nnet = secateur.load("FOLDER", model={model or "Net"}())  # a fresh instance of your class'


def _trust(record: Mapping[str, Any]) -> str:
    model, data = str(record["model"]), str(record["data"])
    if ":" not in model:  # a run of Python objects, whose folder names no code
        return ""
    return "" if model.startswith(ZOO) and not is_data_path(data) else " --trust"


def _session(record: Mapping[str, Any], imports: str, package: str, file: str) -> str:
    inputs = record.get("inputs") or [{"name": "input", "type": "", "shape": []}]
    given = ", ".join(f'"{i["name"]}": {_variable(k)}' for k, i in enumerate(inputs))
    said = ", ".join(_described(k, i) for k, i in enumerate(inputs) if i["shape"])
    comment = f"  # {said}" if said else ""
    return (
        f'{imports}\nsession = {package}.InferenceSession("FOLDER/{file}")\ny = session.run(None, {{{given}}}){comment}'
    )


def _variable(index: int) -> str:
    return "x" if index == 0 else f"x{index + 1}"


def _described(index: int, item: Mapping[str, Any]) -> str:
    shape = ", ".join("?" if s is None else str(s) for s in item["shape"])
    return f"{_variable(index)}: {item['type'].removeprefix('tensor(').removesuffix(')')} array [{shape}]"
