"""Bring your own pruned network: any ONNX file in, a small packed file and a faster run out. No recipe, no training.

    python examples/bring_your_own_onnx.py            # makes a pruned network first, with PyTorch's own tools
    python examples/bring_your_own_onnx.py my.onnx    # or takes yours

The second half, everything below `pack_and_run`, needs NumPy only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from secateur import InferenceSession, formats
from secateur.engine import bench


def pack_and_run(path: Path) -> None:
    """Pack an ONNX file, run both forms, and say what the zeros were worth."""
    onnx = path.read_bytes()
    packed = formats.pack(onnx)  # finds zeros, codebooks and grids by itself; keeps the smallest coding
    path.with_suffix(".sct").write_bytes(packed)
    print(f"{path.name}: {len(onnx):,} bytes -> {len(packed):,} bytes ({len(onnx) / len(packed):.1f}x smaller)")
    for section in formats.sections(packed):
        print(f"  {section.name:24s} {section.nbytes:8,d} bytes")

    ours, plain = InferenceSession(packed), InferenceSession(onnx)
    feeds = {}
    for item in ours.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in item.shape]
        feeds[item.name] = np.random.default_rng(0).random(shape, np.float32)
    same = all(np.array_equal(a, b) for a, b in zip(ours.run(None, feeds), plain.run(None, feeds), strict=True))
    print(f"the packed file computes the same bits as the ONNX file: {same}")
    assert same

    # Interleaved, warm, one thread; runtimes that are not installed are named. On the command line: secateur bench
    timed = bench(packed, against=("onnxruntime",), seconds=0.5)
    for run in timed["runs"]:
        print(f"  {run['runtime']:12s} {1000 * run['latency_ms']['median']:8.1f} microseconds a call")
    for peer, reason in timed["skipped"].items():
        print(f"  {peer}: skipped, {reason}")


def make_pruned(path: Path) -> None:
    """A small classifier pruned to 90 % zeros by torch.nn.utils.prune and written by torch's own exporter."""
    import torch
    from torch import nn
    from torch.nn.utils import prune

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 100), nn.ReLU(), nn.Linear(100, 10)
    ).eval()
    weights = [(m, "weight") for m in net if hasattr(m, "weight")]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=0.9)
    for module, name in weights:
        prune.remove(module, name)
    torch.onnx.export(net, (torch.zeros(1, 1, 8, 8),), str(path), dynamo=True, external_data=False, verbose=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pack_and_run(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as folder:
            make_pruned(Path(folder) / "pruned.onnx")
            pack_and_run(Path(folder) / "pruned.onnx")
