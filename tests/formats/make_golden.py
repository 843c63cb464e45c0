"""Makes tests/formats/golden/2.0: a few small files that every later reader must still read, byte for byte.

PYTHONPATH=src python tests/formats/make_golden.py      (only for a new version of the format)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from format_nets import lenet, mlp, model_bytes, random_graph, sparse

from secateur import formats


def models() -> dict[str, tuple[bytes, bool]]:
    """Name -> (ONNX, exact)."""
    g = np.random.default_rng(7)
    weights = {
        "conv1.weight": sparse(g, (6, 1, 5, 5), 0.4), "conv1.bias": sparse(g, (6,), 1.0),
        "conv2.weight": sparse(g, (12, 6, 5, 5), 0.05), "conv2.bias": sparse(g, (12,), 1.0),
        "fc1.weight": sparse(g, (20, 192), 0.04), "fc1.bias": sparse(g, (20,), 1.0),
        "fc2.weight": sparse(g, (10, 20), 0.3), "fc2.bias": sparse(g, (10,), 1.0),
    }  # fmt: skip
    tensors = {
        "ints": np.arange(-5, 20), "halves": g.normal(size=50).astype(np.float16), "flags": g.random(30) < 0.5,
        "bytes": g.integers(-9, 9, (8, 16)).astype(np.int8), "doubles": g.normal(size=5), "scalar": np.float32(3),
        "grid": (g.integers(-99, 99, 60) * np.float32(0.01)).astype(np.float32), "empty": np.zeros((0, 3), np.float32),
        "n_of_m": np.where(np.arange(4) < 2, g.normal(size=(16, 8, 4)), 0).reshape(16, 32).astype(np.float32),
    }  # fmt: skip
    angles = 2 * np.pi * np.outer(np.arange(9), np.arange(16)) / 16 + 0.25
    window = 1 - np.cos(np.arange(16) * np.pi / 8)
    repeats = {
        "cos": (np.cos(angles) * window).astype(np.float32), "sin": (np.sin(angles) * window).astype(np.float32),
        "table": np.arange(40).reshape(5, 8) * 3, "again": np.arange(40).reshape(8, 5) * 3,
        "turned": np.ascontiguousarray((np.cos(angles) * window).astype(np.float32).T),
        "smooth": np.sin(np.outer(np.arange(12), [0.1, 0.03])).astype(np.float32),
        "steps": (np.arange(30)[:, None] ** 2 + [5, 700]).astype(np.int16),
        "mask": np.tril(np.ones((12, 12), bool)), "rows": np.tile(g.normal(size=(2, 8)), (4, 1)).astype(np.float16),
    }  # fmt: skip
    return {
        "lenet": (lenet(weights), False),
        "mlp_exact": (mlp(width=12), True),
        "tensors": (model_bytes([], tensors, [], []), False),
        "graph": (random_graph(11), False),
        "repeats": (model_bytes([], repeats, [], []), False),
        "repeats_exact": (model_bytes([], repeats, [], []), True),
    }


def main() -> None:
    """Writes NAME.sct and the digests of what unpack must give."""
    folder = Path(__file__).parent / "golden/2.0"
    folder.mkdir(parents=True, exist_ok=True)
    digests = []
    for name, (onnx, exact) in models().items():
        packed = formats.pack(onnx, exact=exact)
        folder.joinpath(f"{name}.sct").write_bytes(packed)
        digests.append(f"{name} {hashlib.sha256(formats.unpack(packed)).hexdigest()}\n")
        print(name, len(onnx), "->", len(packed))
    folder.joinpath("SHA256").write_text("".join(digests))


if __name__ == "__main__":
    main()
