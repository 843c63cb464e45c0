"""Our ONNX files against those of torch's own exporters, in the engine, on ordinary networks made tiny.

    python benchmarks/speed/exports.py --out benchmarks/results/speed-exports.json

The files of a network take turns in one process, one thread, batch 1; before that their answers are compared. Where a
session's memory happens to lie is worth up to 7 % in these small nets, so each file is opened `SESSIONS` times: its
time is the median of its sessions, each of them the fastest of its turns' medians (what a busy neighbour adds is not
the file's). Ours must not be slower: exit code 1 where it is, by more than 3 % and the middle half of our own sessions.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch

from secateur.engine import InferenceSession
from secateur.errors import HandedOverWarning
from secateur.export.onnx import to_bytes
from secateur.graph.capture import quiet_torch
from secateur.shell import saving
from secateur.testing.ordinary import NETS

GRAPHS = {"gcn"}  # no batch axis
SLICE = 50  # runs in a row
SESSIONS = 9  # of each file


def files(name: str) -> dict[str, bytes]:
    """What Secateur writes, and what torch's two exporters write."""
    net, inputs = NETS[name](0)
    free = name not in GRAPHS
    given = [f"x{i}" for i in range(len(inputs))]
    script = io.BytesIO()
    with quiet_torch(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter warns of itself
        axes = {n: {0: "batch"} for n in given} if free else {}
        torch.onnx.export(net, inputs, script, dynamo=False, input_names=given, dynamic_axes=axes)
        shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if free else None
        dynamo: Any = torch.onnx.export(net, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return {
        "ours": to_bytes(net, inputs, dynamic_batch=free),
        "dynamo": dynamo.model_proto.SerializeToString(),
        "torchscript": script.getvalue(),
    }


def timed(name: str, turns: int) -> dict[str, Any]:
    """Microseconds a run of each file, sizes, and what ONNX Runtime had to run."""
    made = files(name)
    inputs = [x[:1] if name not in GRAPHS else x for x in NETS[name](0)[1]]
    runs: dict[tuple[str, int], Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        for i in range(SESSIONS):
            for kind, data in made.items():
                session = InferenceSession(data, threads=1)
                feeds = {n.name: x.numpy() for n, x in zip(session.get_inputs(), inputs, strict=True)}
                runs[kind, i] = session, feeds
        answers = {key: session.run(None, feeds)[0] for key, (session, feeds) in runs.items()}
    for (kind, _), y in answers.items():
        np.testing.assert_allclose(y, answers["ours", 0], rtol=1e-3, atol=1e-4, err_msg=f"{name}: {kind}")
    fastest = dict.fromkeys(runs, float("inf"))
    for turn in range(turns):
        for key in list(runs)[:: -1 if turn % 2 else 1]:
            fastest[key] = min(fastest[key], _median_us(*runs[key]))
    us = {kind: statistics.median(fastest[kind, i] for i in range(SESSIONS)) for kind in made}
    low, _, high = statistics.quantiles((fastest["ours", i] for i in range(SESSIONS)), n=4)
    spread = (high - low) / us["ours"]
    best = min(us["dynamo"], us["torchscript"])
    return {
        "net": name,
        "us": us,
        "spread": spread,
        "ratio": us["ours"] / best,
        "nbytes": {kind: len(data) for kind, data in made.items()},
        "handed_over": {kind: len(runs[kind, 0][0].coverage["handed_over"]) for kind in made},
        "slower": us["ours"] > best * (1.03 + spread),
    }


def _median_us(session: InferenceSession, feeds: dict[str, np.ndarray[Any, Any]]) -> float:
    taken = []
    for _ in range(SLICE):
        began = time.perf_counter()
        session.run(None, feeds)
        taken.append(time.perf_counter() - began)
    return 1e6 * statistics.median(taken)


def main() -> int:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help=f"turns of {SLICE} runs of each file")
    parser.add_argument("--nets", nargs="*", choices=sorted(NETS), help="default: all")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.nets or NETS:
        rows.append(timed(name, given.turns))
        print(json.dumps(rows[-1]), flush=True)
    if given.out:
        saving.write_bytes(given.out, saving.to_json({"provenance": run.provenance(), "rows": rows}))
    return any(row["slower"] for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
