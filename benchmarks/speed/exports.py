"""Our ONNX files against those of torch's own exporters, in the engine, on ordinary networks made tiny.

    python benchmarks/speed/exports.py --out benchmarks/results/speed-exports.json

The files of a network take turns in one process, one thread, batch 1; before that their answers are compared. A file's
time is the fastest of its turns' medians: what a busy neighbour adds is not the file's. Ours must not be slower: exit
code 1 where it is, by more than the spread that two sessions of the same file show.
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


def files(name: str) -> dict[str, bytes]:
    """`ours` twice, and what torch's two exporters write."""
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
    ours = to_bytes(net, inputs, dynamic_batch=free)
    return {
        "ours": ours,
        "ours_again": ours,
        "dynamo": dynamo.model_proto.SerializeToString(),
        "torchscript": script.getvalue(),
    }


def timed(name: str, turns: int) -> dict[str, Any]:
    """Microseconds a run of each file, sizes, and what ONNX Runtime had to run."""
    made = files(name)
    inputs = [x[:1] if name not in GRAPHS else x for x in NETS[name](0)[1]]
    runs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        for kind, data in made.items():
            session = InferenceSession(data, threads=1)
            runs[kind] = session, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
        answers = {kind: session.run(None, feeds)[0] for kind, (session, feeds) in runs.items()}
    for kind, y in answers.items():
        np.testing.assert_allclose(y, answers["ours"], rtol=1e-3, atol=1e-4, err_msg=f"{name}: {kind}")
    medians: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(turns):
        for kind in list(runs)[:: -1 if turn % 2 else 1]:
            session, feeds = runs[kind]
            taken = []
            for _ in range(SLICE):
                began = time.perf_counter()
                session.run(None, feeds)
                taken.append(time.perf_counter() - began)
            medians[kind].append(1e6 * statistics.median(taken))
    us = {kind: min(found) for kind, found in medians.items()}
    spread = abs(us["ours"] - us.pop("ours_again")) / us["ours"]
    best = min(us["dynamo"], us["torchscript"])
    return {
        "net": name,
        "us": us,
        "spread": spread,
        "nbytes": {kind: len(data) for kind, data in made.items() if kind != "ours_again"},
        "handed_over": {kind: len(runs[kind][0].coverage["handed_over"]) for kind in us},
        "slower": us["ours"] > best * (1.03 + spread),
    }


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
