"""Layout `blocks`: what its positions cost, when it is taken, every shape of blocks there and back."""

from __future__ import annotations

import numpy as np
import pytest

from secateur import formats
from secateur.formats.layouts.blocks import Blocks

pytest.importorskip("onnx")
pytest.importorskip("secateur.native._native")
import oracle_reader as oracle
from format_nets import model_bytes
from make_golden import in_blocks


def tensor_of(packed):
    (info,) = [s for s in formats.sections(packed) if s.kind == "tensor"]
    return info


def packed_alone(a):
    return formats.pack(model_bytes([], {"a": a}, [], []))


@pytest.mark.parametrize("block", [(4, 1), (1, 4), (8, 1), (16, 1), (4, 4), (2, 8), (3, 5)])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
def test_positions_cost_what_packing_says(block, density):
    """One value only: what is left are the positions and the header."""
    g = np.random.default_rng(3)
    shape = (48 * block[0], 40 * block[1])
    a = np.abs(np.sign(in_blocks(g, shape, block, density)))
    info = tensor_of(packed_alone(a))
    said = Blocks.position_bits(a.size, np.count_nonzero(a), *block)
    assert info.layout == "blocks"
    assert 0.98 * said <= 8 * info.nbytes <= 1.02 * said + 80


def test_taken_only_where_it_is_smaller():
    g = np.random.default_rng(4)
    blocked = in_blocks(g, (128, 96), (4, 1), 0.1)
    loose = blocked.ravel()[g.permutation(blocked.size)].reshape(blocked.shape)
    in_them, free = packed_alone(blocked), packed_alone(loose)
    assert tensor_of(in_them).layout == "blocks"
    assert tensor_of(free).layout != "blocks"
    assert (in_them[3] >> 4, free[3] >> 4) == (3, 2)
    # Positions of single elements cost log2 C(n, nnz), of blocks log2 C(n / 4, nnz / 4).
    assert (
        len(free) - len(in_them)
        > 0.9 * (formats_bits(loose) - Blocks.position_bits(blocked.size, np.count_nonzero(blocked))) / 8
    )


def formats_bits(a):
    return Blocks.position_bits(a.size, np.count_nonzero(a), 1, 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize(
    ("shape", "block"),
    [((64, 48), (4, 1)), ((61, 47), (4, 4)), ((24, 16, 3, 3), (1, 9)), ((32, 8, 5), (8, 5)), ((130, 70), (64, 3))],
)
def test_there_and_back(dtype, shape, block):
    g = np.random.default_rng([len(shape), *block])
    a = in_blocks(g, (shape[0], int(np.prod(shape[1:]))), block, 0.2)
    a *= g.random(a.shape) < 0.97  # a few zeros inside
    a = (a if dtype.startswith("f") else np.rint(4 * a)).astype(dtype).reshape(shape)
    packed = packed_alone(a)
    (mine,) = oracle.read(packed).constants
    assert mine["data"] == a.tobytes()
    assert formats.pack(formats.unpack(packed)) == packed
    assert tensor_of(packed).nbytes == formats.measure(a).nbytes


def test_channels_innermost():
    """1 x 4 blocks of input channels at one place of the kernel, as int8 kernels want them."""
    g = np.random.default_rng(6)
    matrix = np.rint(in_blocks(g, (32, 9 * 16), (1, 4), 0.15) * 20).astype(np.int8)
    a = np.ascontiguousarray(matrix.reshape(32, 9, 16).transpose(0, 2, 1)).reshape(32, 16, 3, 3)
    packed = packed_alone(a)
    assert tensor_of(packed).layout == "blocks"
    (mine,) = oracle.read(packed).constants
    assert mine["data"] == a.tobytes()


def test_large_tensors_keep_their_fast_values():
    """From 65,536 kept values on, mantissas lie apart and decode at memory speed."""
    g = np.random.default_rng(7)
    a = in_blocks(g, (1024, 512), (8, 1), 0.2)
    info = tensor_of(packed_alone(a))
    assert (info.layout, info.codec) == ("blocks", "split")
    (mine,) = oracle.read(packed_alone(a[:640])).constants
    assert mine["data"] == a[:640].tobytes()
