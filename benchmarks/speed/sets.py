"""Every set of supports on one trained net: energy kept at 80 and 90 % zeros, and what the engine takes for it.

    python benchmarks/speed/sets.py --task fashion --out benchmarks/results/sets-fashion.json

No training: the weights of a dense net in `benchmarks/nets` are projected at once, all convolutions but the first.
Energy is the sum of the squares kept by that of all, of these layers. Speed is a call's, one thread, batch 1, on
examples of the validation part in rotation, turns of all nets interleaved. Zeros are left in the file, but for `rows`
and `inputs`, whose channels are removed as a run removes them; what that takes from other layers is in the times and
multiply-adds and not in the energy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import onnx
import run
import torch
from onnx import numpy_helper
from torch import nn

from secateur import data, engine, formats, graph, zoo
from secateur.constraints import together
from secateur.engine import patterned
from secateur.engine.side_by_side import side_by_side
from secateur.errors import ConstraintError
from secateur.export import written
from secateur.recipe import build_constraint, naming
from secateur.shell import saving
from secateur.terms import views

ROOT = Path(__file__).parents[2]
# Of a task: the constructor in secateur.zoo, the data set.
TASKS = {"fashion": ("fashion_resnet", "fashion_mnist"), "fsdd": ("speech_cnn", "fsdd")}
ZEROS = (0.8, 0.9)
N_INPUTS = 64
FREE, DENSE = "topk", "dense"  # what the others are compared with
SETS: dict[str, Any] = {
    FREE: "topk",
    "rows": "rows",
    "inputs": "inputs",
    "columns": "columns",
    "kernels": "kernels",
    "kernels per_row": {"name": "kernels", "per_row": True},
    "patterns 8, kernels": ["patterns", "kernels"],
    "blocks 1x4": {"name": "blocks", "rows": 1, "cols": 4},
    "blocks 4x1": {"name": "blocks", "rows": 4},
    "block_columns 8x64": "block_columns",
    "block_columns 8x16 per_block": {"name": "block_columns", "cols": 16, "per_block": True},
    "block_columns 4": {"name": "block_columns", "rows": 4},
    "block_rows 64x8": "block_rows",
    "punched 8x4": "punched",
    "punched 8x4 per_block": {"name": "punched", "per_block": True},
    "pe_wise 8x4": "pe_wise",
    "nm 16": {"name": "nm", "m": 16},
    "gather_scatter 8 in a row": "gather_scatter",
    "gather_scatter 8 over 8 rows": {"name": "gather_scatter", "per_row": 1},
    "crossbar 64x128 columns": "crossbar",
    "crossbar 16x32 arrays": {"name": "crossbar", "rows": 16, "cols": 32, "cut": "arrays"},
}


def level_of(constraint: Any, shape: tuple[int, int], zeros: float) -> Any:
    """The level of about so many zeros; beside patterns of 4 in 9 the kernels make up for the rest."""
    if "patterns" in constraint.name:
        given: Any = {"patterns": {"entries": 4}, "kernels": {"sparsity": 1 - (1 - zeros) * 9 / 4}}
    else:
        given = {"sparsity": zeros}
    return constraint.parse_level(given, shape)


def projected(net: nn.Module, traced: Any, given: Any, zeros: float) -> tuple[dict[str, torch.Tensor], float, float]:
    """The weights that change, the share of their energy kept and the share of zeros among them."""
    asked = together([build_constraint(g) for g in given]) if isinstance(given, list) else build_constraint(given)
    weights = {k: p.detach() for k, p in net.named_parameters()}
    first = next(s.name for s in traced.sites)
    pool = [
        s
        for s in naming.pool_of(asked.view, traced.sites, traced.groups)
        if all(len(weights[m.param].shape) == 4 and m.param != first for m in s.members)
    ]
    own = {s.name: asked.on(s) for s in pool}
    library = {c: c.fitted([views.matrix(s, c.view, weights) for s in pool if own[s.name] == c]) for c in own.values()}
    changed: dict[str, torch.Tensor] = {}
    kept = total = n = n_zero = 0.0
    for site in pool:
        constraint = library[own[site.name]]
        matrix = views.matrix(site, constraint.view, weights)
        z = constraint.project(matrix, level_of(constraint, tuple(matrix.shape), zeros))
        if not bool(z.any()):
            raise ConstraintError(f"{constraint.name} keeps nothing of {site.name} at {zeros:.0%}")
        changed |= views.write(site, constraint.view, weights, z)
        kept, total = kept + float(z.square().sum()), total + float(matrix.square().sum())
        n, n_zero = n + z.numel(), n_zero + int((z == 0).sum())
    return changed, kept / total, n_zero / n


def with_zeros(file: Any, changed: Mapping[str, torch.Tensor]) -> bytes:
    """The dense file, norms folded in, with zeros where the weights have them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(file)
    names = {layer.constant: layer.name for layer in patterned.layers(copy)}
    done = set()
    for tensor in copy.graph.initializer:
        name = names.get(tensor.name)
        if name in changed:
            values = np.where(changed[name].numpy() != 0, numpy_helper.to_array(tensor), np.float32(0))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            done.add(name)
    assert done == changed.keys(), f"no tensor of the file for {changed.keys() - done}"
    return bytes(copy.SerializeToString())


def kernels_of(model: bytes) -> dict[str, int]:
    """Kernels of the convolutions, with how many layers each runs."""
    steps = engine.InferenceSession(model, threads=1).explain(repeats=0)
    return dict(Counter(s["kernel"] for s in steps if s["kernel"].startswith("conv")))


def main() -> None:
    """Project, time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="fsdd")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each net")
    parser.add_argument("--data-dir", type=Path, help="where its data are (or SECATEUR_DATA)")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    built, name_of_data = TASKS[given.task]
    stored = ROOT / "benchmarks" / "nets" / given.task / "seed0" / "dense,width=1.0" / "model.safetensors"
    net = getattr(zoo, built)()
    zoo.load_weights(net, stored)
    net.eval()
    images = torch.cat([x for x, _ in data.load(name_of_data, given.data_dir).valid])[:N_INPUTS]
    example = graph.settle(net, images[:1])
    traced = graph.trace(net, example)
    dense = written.exported_bytes(net, example)
    parsed = patterned.parsed(dense)
    files, rows = {DENSE: dense}, []
    for name, asked in SETS.items():
        for zeros in ZEROS:
            try:
                changed, energy, share = projected(net, traced, asked, zeros)
            except ConstraintError as e:
                rows.append({"set": name, "asked": zeros, "why_not": str(e)})
                continue
            key = f"{name} @ {zeros}"
            if asked in ("rows", "inputs"):
                small, _ = graph.shrink(net, traced, {**dict(net.named_parameters()), **changed})
                files[key] = written.exported_bytes(small.eval(), example)
            else:
                files[key] = with_zeros(parsed, changed)
            rows.append({"set": name, "asked": zeros, "zeros": share, "energy": energy, "key": key})
    found = side_by_side(files, images.numpy(), (), seconds=given.seconds)
    times = {name: runtimes["engine"] for name, runtimes in found["latency_ms"].items()}
    free = {r["asked"]: r for r in rows if r["set"] == FREE}
    for row in rows:
        if "key" not in row:
            continue
        key = row.pop("key")
        row["latency_ms"], row["kernels"] = times[key], kernels_of(files[key])
        row["of_unstructured"] = row["energy"] / free[row["asked"]]["energy"]
        row["speedup"] = times[DENSE]["median"] / times[key]["median"]
        row["macs_nonzero"] = engine.inspect(files[key])["totals"]["macs_nonzero"]
        row["nbytes"] = len(formats.pack(files[key]))
    record = {
        "what": f"{built}, trained dense: sets of supports projected at once, nothing retrained",
        "net": str(stored.relative_to(ROOT)),
        "dense": {"latency_ms": times[DENSE], "kernels": kernels_of(dense)},
        "rows": rows,
        **{k: found[k] for k in ("threads", "batch", "n_inputs", "cpu", "isa")},
        "provenance": run.provenance(),
    }
    for row in rows:
        print(json.dumps(row))
    if given.out:
        saving.write_bytes(given.out, saving.to_json(record))


if __name__ == "__main__":
    main()
