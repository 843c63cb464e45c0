"""The levels of a net that can be changed at run time, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from secateur.report import document, words

TITLES = ["level", "metric", "nonzeros", "MACs", "file alone", "engine", "limits"]


def rows(record: Mapping[str, Any]) -> list[list[str]]:
    """One row for each level, from loose to tight; none where the net has no levels."""
    found = []
    for row in record.get("levels") or []:
        time = ((row.get("latency_ms") or {}).get("engine") or {}).get("median")
        limits = [
            f"{x['name']} <= {words.amount(x['name'], x['asked'])}{'' if x['met'] else ' NOT MET'}"
            for x in row.get("budget") or []
        ]
        found.append(
            [
                str(row["level"]),
                words.metric(row.get("metric")),
                words.count(row.get("nnz")),
                words.big(row.get("macs")),
                words.nbytes(row.get("nbytes")),
                words.milliseconds(time) if time is not None else words.NONE,
                ", ".join(limits) or words.NONE,
            ]
        )
    return found


def said(record: Mapping[str, Any]) -> str:
    """The sentence above the table."""
    size = words.nbytes(record["compressed"].get("nbytes"))
    return f"levels of one set of weights, chosen at run time; the file that holds all of them has {size}"


def section(record: Mapping[str, Any]) -> str:
    """The part of the page; empty where the net has no levels."""
    found = rows(record)
    if not found:
        return ""
    head = "".join(f'<th scope="col">{escape(t)}</th>' for t in TITLES)
    lines = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in found)
    table = (
        f'<div class="panel scroll"><table><caption><span>{escape(said(record))}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
    return document.section("levels", "Levels", table)
