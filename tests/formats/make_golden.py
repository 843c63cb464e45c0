"""Makes tests/formats/golden: a few small files that every later reader must still read, byte for byte.

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
    return {
        "lenet": (lenet(weights), False),
        "mlp_exact": (mlp(width=12), True),
        "tensors": (model_bytes([], tensors, [], []), False),
        "graph": (random_graph(11), False),
    }


def main() -> None:
    """Writes NAME.sct and the digests of what unpack must give."""
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    digests = []
    for name, (onnx, exact) in models().items():
        packed = formats.pack(onnx, exact=exact)
        folder.joinpath(f"{name}.sct").write_bytes(packed)
        digests.append(f"{name} {hashlib.sha256(formats.unpack(packed)).hexdigest()}\n")
        print(name, len(onnx), "->", len(packed))
    folder.joinpath("SHA256").write_text("".join(digests))


if __name__ == "__main__":
    main()
