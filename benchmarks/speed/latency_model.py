"""Predicted against measured latency of whole nets at random levels: the table of a run against the clock of a run.

    python benchmarks/speed/latency_model.py --out benchmarks/results/latency-model.json

Each allocation draws a share of zeros for every layer (of the width too, with --narrow), writes random weights at it
into the file that a run would write, and times that: the median of 300 runs and more, one thread, batch 1. Only where
zeros lie matters, so nothing is trained. Layers that are off are named by what they take where they stand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch
from scipy.stats import spearmanr

from secateur import graph, zoo
from secateur.engine import InferenceSession, clock, patterned, tabulate
from secateur.engine.latency import CHANNELS, Table
from secateur.run import forms, machine
from secateur.shell import saving

NETS = {"fashion": ("fashion_resnet", (1, 28, 28)), "resnet20": ("resnet20", (3, 32, 32))}
KINDS = {"float, zeros anywhere": ("any", 32), "int8, 1x4 blocks": ("1x4", 8)}
LEAST, MOST = 0.3, 0.98  # share of zeros
DRAWS = (
    "independent",
    "around one",
)  # of a layer's share: whole nets hardly differ then; or near one of the whole net's
AROUND = 0.2
NARROWEST = 0.2
_ROUNDS = 3  # of all allocations; the median counts
_REPEATS = 40  # of a step


class Subject:
    """One net: its files and its table."""

    def __init__(self, name: str, pattern: str, bits: int, narrow: bool) -> None:
        build, shape = NETS[name]
        torch.manual_seed(0)
        self.net = getattr(zoo, build)().eval()
        self.pattern, self.bits = pattern, bits
        example = graph.settle(self.net, torch.randn(2, *shape), None)
        traced = graph.trace(self.net, example)
        layers = [s.name for s in traced.sites if s.op in ("conv", "linear")] if bits == 8 else []
        self.form = forms.form(self.net, traced, example, layers)
        asked = (pattern, CHANNELS) if narrow else (pattern,)
        self.table: Table = tabulate.table(self.form(32, 1.0), asked, self.form, " ".join(layers))
        self.whole = self.form(bits, 1.0)
        dense = sum(layer.cost("us", 1.0, 1.0, bits=bits) for layer in self.table.layers.values())
        took = clock.timed(InferenceSession(self.whole, threads=1, tune="off"), *machine.OF_DENSE).us
        self.ratio = machine.corrected(1.0, dense + self.table.rest(bits), took)  # as a run begins

    def allocations(self, n: int, draw: str, narrow: bool) -> list[dict[str, Any]]:
        """Predicted and measured ms at random allocations, and both of each layer; all in turn, for clocks drift."""
        made = [self._made(seed, draw, narrow) for seed in range(n)]
        times = [[1e-3 * clock.timed(session).us for session, _ in made] for _ in range(_ROUNDS)]
        for i, (session, row) in enumerate(made):
            row |= {"measured_ms": float(np.median([t[i] for t in times])), "rounds_ms": [t[i] for t in times]}
            took = dict.fromkeys((s["layer"] for s in session.explain(1, 0)), 0.0)
            for s in session.explain(1, _REPEATS):
                took[s["layer"]] += s["time_us"]
            row["layers"] = {k: [us, round(took.get(node, 0.0), 2)] for k, (us, node) in row["layers"].items()}
        return [row for _, row in made]

    def _made(self, seed: int, draw: str, narrow: bool) -> tuple[InferenceSession, dict[str, Any]]:
        rng = np.random.default_rng(seed)
        data = self.form(self.bits, float(rng.uniform(NARROWEST, 1.0))) if narrow else self.whole
        parsed = patterned.parsed(data)
        layers = patterned.layers(parsed)
        zeros = rng.uniform(LEAST, MOST, len(layers))
        if draw == "around one":
            zeros = np.clip(rng.uniform(LEAST, MOST) + rng.uniform(-AROUND, AROUND, len(layers)), LEAST, MOST)
        density = {x.name: float(1 - z) for x, z in zip(layers, zeros, strict=True)}
        said = {}
        for x in layers:
            known = self.table.layers[x.name]
            said[x.name] = self.ratio * known.cost("us", x.n / known.n, density[x.name], self.pattern, self.bits)
        whole = 1e-3 * (sum(said.values()) + self.ratio * self.table.rest(self.bits))
        data = patterned.pruned(parsed, self.pattern, density, seed + 1)
        by_layer = {x.name: (round(said[x.name], 2), x.node) for x in layers}
        return InferenceSession(data, threads=1, tune="off"), {"predicted_ms": whole, "layers": by_layer}


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Errors and rank correlation."""
    said, took = (np.array([r[k] for r in rows]) for k in ("predicted_ms", "measured_ms"))
    error = np.abs(said / took - 1)
    return {
        "median_error": float(np.median(error)),
        "largest_error": float(error.max()),
        "rank_correlation": float(spearmanr(said, took).statistic),
        "rank_correlation_of_two_rounds": float(
            spearmanr(*zip(*(r["rounds_ms"][:2] for r in rows), strict=True)).statistic
        ),
        "median_ratio": float(np.median(said / took)),
        "least_ms": float(took.min()),
        "most_ms": float(took.max()),
    }


def off(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The layers by what of the net they are mispriced by, worst first: median of (predicted - measured) / whole."""
    names = rows[0]["layers"]
    gaps = {
        n: float(np.median([(r["layers"][n][0] - r["layers"][n][1]) / r["measured_ms"] for r in rows])) for n in names
    }
    return sorted(((n, g / 1e3) for n, g in gaps.items()), key=lambda x: -abs(x[1]))


def told(subject: Subject, net: str, kind: str, draw: str, args: argparse.Namespace) -> dict[str, Any]:
    """One line of the record, printed."""
    rows = subject.allocations(args.allocations, draw, args.narrow)
    name = f"{kind}, {draw}{', narrower' if args.narrow else ''}"
    s = summary(rows)
    print(
        f"{net}, {name}: {s['least_ms']:.4f} to {s['most_ms']:.4f} ms; error {s['largest_error']:.1%} at most, "
        f"{s['median_error']:.1%} in the median; predicted / measured {s['median_ratio']:.3f}; rank correlation "
        f"{s['rank_correlation']:.3f}, of the clock with itself {s['rank_correlation_of_two_rounds']:.3f}",
        flush=True,
    )
    for layer, gap in off(rows)[:3]:
        print(f"  {layer}: {gap:+.1%} of the net", flush=True)
    return {"net": net, "kind": name, **s, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--allocations", type=int, default=20)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--draws", nargs="+", choices=DRAWS, default=list(DRAWS))
    parser.add_argument("--narrow", action="store_true", help="of narrower nets as well")
    parser.add_argument("--out", type=Path, help="JSON with provenance; what is there of other nets and kinds is kept")
    args = parser.parse_args()
    found = []
    for net in args.nets:
        for kind in args.kinds:
            subject = Subject(net, *KINDS[kind], args.narrow)
            for draw in args.draws:
                found.append(told(subject, net, kind, draw, args))
    if args.out:
        kept = json.loads(args.out.read_text())["found"] if args.out.is_file() else []
        names = {(f["net"], f["kind"]) for f in found}
        kept = [f for f in kept if (f["net"], f["kind"]) not in names]
        record = {**run.provenance(), "bars": {"median_error": 0.1, "rank_correlation": 0.95}, "found": [*kept, *found]}
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0 if all(f["median_error"] <= 0.1 and f["rank_correlation"] >= 0.95 for f in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
