"""A compressed net beside its dense one: is it small enough, did it lose little enough, and what ran it?

lost = how much worse it is on the test part, in the measure, over all seeds that both have
met    lost <= points of a fraction, or <= share of the dense net's loss; every seed's file has at most `nbytes` of
       the dense net's bytes, 4 for every weight and bias, and passed `verify`
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from secateur.report import words
from secateur.reproduce.plan import Study

Json = dict[str, Any]
Runs = Mapping[str, Mapping[int, Json]]  # cell -> seed -> its facts


def row(study: Study, runs: Runs, latency: Mapping[str, Any]) -> Json:
    """The study's bar and how it was met; empty where it has none, or a net of it is not finished.

    Args:
        latency: of `engine.side_by_side`, or empty.
    """
    asked = study.plan.bar
    if asked is None:
        return {}
    names = {key: study.matching(getattr(asked, key))[0].name for key in ("dense", "part")}
    dense, ours = runs[names["dense"]], runs[names["part"]]
    seeds = sorted(dense.keys() & ours.keys())
    if not seeds:
        return {}
    kind, times = study.plan.kind, latency.get("latency_ms", {})
    sign = 1 if kind.higher_is_better else -1
    before, after = (fmean(float(side[s]["test"]) for s in seeds) for side in (dense, ours))
    lost = sign * (before - after)
    allowed = asked.points if kind.higher_is_better else asked.share * before
    whole = 4 * (study.plan.n_weights + dense[seeds[0]]["n_biases"])
    largest = max(ours[s]["nbytes"] for s in seeds) / whole
    failed = sorted({name for s in seeds for name in ours[s]["failed_checks"]})
    first = ours[seeds[0]]
    return {
        **{"data": study.plan.data, "n_seeds": len(seeds), "n_weights": study.plan.n_weights},
        "dense": {"test": before, "nbytes": whole, "ms": times.get(names["dense"])},
        "part": {"test": after, "nbytes": fmean(ours[s]["nbytes"] for s in seeds), "ms": times.get(names["part"])},
        "beside": {name: _beside(study, name, runs) for name in asked.beside},
        **{"lost": lost, "allowed": allowed, "bytes_asked": asked.nbytes, "bytes_found": largest},
        **{"failed": failed, "coverage": first["coverage"], "why": asked.why},
        "met": lost <= allowed and largest <= asked.nbytes and not failed,
    }


def _beside(study: Study, name: str, runs: Runs) -> Json | None:
    found = list(runs[study.matching(name)[0].name].values())
    return {k: fmean(float(f[k]) for f in found) for k in ("test", "nbytes")} if found else None


def columns(records: Mapping[str, Json]) -> list[str]:
    """Of the table of all tasks."""
    beside = list(dict.fromkeys(n for r in records.values() for n in r["bar"].get("beside", {})))
    return [
        *("task", "data", "weights", "bytes, dense", "bytes", "fewer", "dense", "compressed"),
        *(n.replace("_", "-") for n in beside),
        *("lost", "allowed", "nodes in the engine", "multiply-adds", "time, dense", "time", "met"),
    ]


def lines(records: Mapping[str, Json], shown: Any) -> list[list[str]]:
    """One row a task. `shown(value, measure, signed)` writes a value of the measure."""
    beside = list(dict.fromkeys(n for r in records.values() for n in r["bar"].get("beside", {})))
    return [_line(name, r, beside, shown) for name, r in records.items() if r["bar"]]


def notes(records: Mapping[str, Json]) -> list[str]:
    """What a reader must know of the rows: what the engine does not take, why a bar is missed, how it was timed."""
    out = []
    for name, record in records.items():
        found = record["bar"]
        if not found:
            out.append(f"{name}: not finished.")
            continue
        if found["coverage"]["handed_over"]:
            out.append(f"{name}: ONNX Runtime takes {', '.join(found['coverage']['handed_over'])}.")
        if found["failed"]:
            out.append(f"{name}: verify FAILED: {', '.join(found['failed'])}.")
        if not found["met"]:
            out.append(f"{name}: missed" + (f": {found['why']}." if found["why"] else "."))
    seeds = sorted({r["bar"]["n_seeds"] for r in records.values() if r["bar"]})
    timed = next((r["latency"] for r in records.values() if r["latency"]), None)
    if seeds:
        out.append(f"Seeds of a row: {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))}.")
    if timed is not None:
        out.append(
            "Times: median of one call in the engine, one thread, batch 1 (a graph: whole), real test inputs, dense "
            f"and compressed in turns; {timed['cpu']}, {timed['isa']}."
        )
    return out


def _line(name: str, record: Json, beside: list[str], shown: Any) -> list[str]:
    found, measure = record["bar"], record["measure"]

    def value(side: Json | None) -> str:
        return "-" if side is None else str(shown(side["test"], measure))

    def us(side: Json) -> str:
        return "-" if side["ms"] is None else words.milliseconds(side["ms"]["engine"]["median"])

    ran = found["coverage"]
    ours, rest = ran["macs"]["engine"], ran["macs"]["handed_over"]
    share = f"{100 * ours / (ours + rest):.0f} %" if ours is not None and rest is not None and ours + rest else "-"
    return [
        *(name, found["data"].rpartition(".")[2], f"{found['n_weights']:,}"),
        *(f"{found['dense']['nbytes']:,.0f}", f"{found['part']['nbytes']:,.0f}"),
        f"{found['dense']['nbytes'] / found['part']['nbytes']:.1f}x",
        *(value(found["dense"]), value(found["part"])),
        *(value(found["beside"].get(n)) for n in beside),
        *(shown(found["lost"], measure, True), shown(found["allowed"], measure, True)),
        *(f"{ran['n_engine']} of {ran['n_nodes']}", share, us(found["dense"]), us(found["part"])),
        "yes" if found["met"] else "NO",
    ]
