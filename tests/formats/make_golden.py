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


def in_blocks(g: np.random.Generator, shape: tuple[int, int], block: tuple[int, int], density: float) -> np.ndarray:
    """A matrix whose nonzeros fill whole blocks."""
    kept = g.random((-(-shape[0] // block[0]), -(-shape[1] // block[1]))) < density
    kept = np.kron(kept, np.ones(block))[: shape[0], : shape[1]]
    return np.where(kept, g.normal(size=shape), 0).astype(np.float32)


def block_models() -> dict[str, tuple[bytes, bool]]:
    """Those of version 3."""
    g = np.random.default_rng(8)
    w = in_blocks(g, (64, 36), (8, 1), 0.15)
    conv = in_blocks(g, (16, 12 * 9), (2, 4), 0.2).reshape(16, 9, 12).transpose(0, 2, 1).reshape(16, 12, 3, 3)
    tensors = {
        "rows": w, "conv": np.ascontiguousarray(conv), "ragged": in_blocks(g, (50, 31), (4, 4), 0.2),
        "signs": np.sign(in_blocks(g, (64, 64), (4, 1), 0.1)),
        "ints": np.rint(in_blocks(g, (32, 64), (1, 8), 0.2) * 2).astype(np.int8),
        "halves": in_blocks(g, (40, 40), (5, 2), 0.2).astype(np.float16),
    }  # fmt: skip
    return {
        "blocks": (model_bytes([], tensors, [], []), False),
        "blocks_exact": (model_bytes([], tensors, [], []), True),
    }


VERSIONS = {"2.0": models, "3.0": block_models}


def level_models() -> dict[str, list[bytes]]:
    """Those of version 4: by name the ONNX of every level, from loose to tight."""
    g = np.random.default_rng(9)
    w, conv = sparse(g, (40, 60), 0.5), in_blocks(g, (24, 16 * 9), (8, 1), 0.5).reshape(24, 16, 3, 3)
    fixed = {"halves": sparse(g, (20, 30), 0.6).astype(np.float16), "codes": g.integers(-9, 9, (6, 7)).astype(np.int8)}
    rows = g.random(24)
    made = []
    for keep in (1.0, 0.5, 0.2):
        own = {
            "w": np.where(abs(w) >= np.quantile(abs(w[w != 0]), 1 - keep), w, 0),
            "conv": np.where((rows < keep)[:, None, None, None], conv, 0),
            "scale": g.normal(size=24).astype(np.float32), "empty": np.zeros((0, 3), np.float32),
            "halves": np.where(abs(fixed["halves"]) > 1 - keep, fixed["halves"], np.float16(0)),
            "codes": fixed["codes"], "mask": np.arange(30) < 30 * keep,
        }  # fmt: skip
        made.append(model_bytes([], own, [], []))
    return {"levels": made}


def main() -> None:
    """Writes NAME.sct and the digests of what unpack must give."""
    golden = Path(__file__).parent / "golden"
    for version, made in VERSIONS.items():
        write(golden / version, made())
    (golden / "4.0").mkdir(exist_ok=True)
    for name, models_of in level_models().items():
        (golden / "4.0" / f"{name}.sct").write_bytes(formats.pack_levels(models_of))


def write(folder: Path, made: dict[str, tuple[bytes, bool]]) -> None:
    """One version's."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = []
    for name, (onnx, exact) in made.items():
        packed = formats.pack(onnx, exact=exact)
        folder.joinpath(f"{name}.sct").write_bytes(packed)
        digests.append(f"{name} {hashlib.sha256(formats.unpack(packed)).hexdigest()}\n")
        print(name, len(onnx), "->", len(packed))
    folder.joinpath("SHA256").write_text("".join(digests))


if __name__ == "__main__":
    main()
