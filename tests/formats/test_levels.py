"""Files of several levels: the same bits at each, small, read as the page says, hostile bytes refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import oracle_reader as oracle
import pytest
from format_nets import mlp, model_bytes, sparse
from make_golden import in_blocks, level_models

from secateur import formats
from secateur.errors import FormatError, UsageError

onnx = pytest.importorskip("onnx")
GOLDEN = Path(__file__).parent / "golden" / "4.0" / "levels.sct"


def tensors(model: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(model).graph
    return {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}


def same(a: bytes, b: bytes) -> bool:
    one, two = tensors(a), tensors(b)
    return one.keys() == two.keys() and all(np.array_equal(one[k].view(), two[k]) for k in one)


def chain(shape=(200, 300), shares=(1.0, 0.5, 0.2), density=0.4, seed=0) -> list[bytes]:
    g = np.random.default_rng(seed)
    w = sparse(g, shape, density)
    edges = [np.quantile(abs(w[w != 0]), 1 - share) for share in shares]
    return [
        model_bytes([], {"w": np.where(abs(w) >= e, w, 0), "s": g.normal(size=8).astype(np.float32)}, [], [])
        for e in edges
    ]


def sealed(data: bytes) -> bytes:
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize(
    "models", [*level_models().values(), chain(), chain((600, 700))], ids=["golden", "small", "sections"]
)
def test_every_level_comes_back_to_the_bit(models: list[bytes]) -> None:
    packed = formats.pack_levels(models)
    assert packed[3] >> 4 == 4
    assert (packed[4] & 1 == 1) == (len(packed) > 65536)
    assert formats.levels(packed[:16]) == formats.levels(packed) == 3
    for level, model in enumerate(models):
        alone = formats.unpack(formats.pack(model))
        assert formats.unpack(packed, level=level) == alone
    assert formats.pack_levels([formats.unpack(packed, level=k) for k in range(3)]) == packed
    assert sum(s.nbytes for s in formats.sections(packed)) == len(packed)


@pytest.mark.parametrize("models", [*level_models().values(), chain((30, 40))], ids=["golden", "small"])
def test_the_slow_reader_agrees(models: list[bytes]) -> None:
    packed = formats.pack_levels(models)
    for level, model in enumerate(models):
        found = {t["name"]: t["data"] for t in oracle.read(packed, level).constants}
        for name, values in tensors(formats.unpack(packed, level=level)).items():
            assert found[name] == values.tobytes(), (level, name)
        assert same(formats.unpack(packed, level=level), model)


def test_golden_bytes() -> None:
    assert formats.pack_levels(level_models()["levels"]) == GOLDEN.read_bytes()


def test_a_chain_is_hardly_larger_than_its_loosest_level() -> None:
    """Where magnitudes tell the supports, and where whole blocks or rows go: far below a bit for each kept weight."""
    g = np.random.default_rng(1)
    blocks = in_blocks(g, (128, 256), (4, 1), 0.5)
    kept = np.repeat(np.repeat(g.random((32, 256)) < 0.5, 4, 0), 1, 1)
    rows = sparse(g, (128, 256), 0.5)
    two = [
        (sparse(g, (128, 256), 0.5), lambda w: np.where(abs(w) > np.quantile(abs(w[w != 0]), 0.5), w, 0), 0.1),
        (blocks, lambda w: np.where(kept, w, 0), 0.4),  # a quarter of a bit is what the choice of blocks takes
        (rows, lambda w: np.where(g.random((128, 1)) < 0.5, w, 0), 0.1),
    ]
    for w, tighter, most in two:
        models = [model_bytes([], {"w": x.astype(np.float32)}, [], []) for x in (w, tighter(w))]
        alone = len(formats.pack(models[0]))
        more = len(formats.pack_levels(models)) - alone
        assert 8 * more <= most * np.count_nonzero(w) + 100, (more, alone)


def test_what_is_no_chain_is_refused() -> None:
    one, other = chain()[0], model_bytes([], {"v": np.zeros(3, np.float32)}, [], [])
    for models in ([one], [one] * 17, []):
        with pytest.raises(UsageError, match=r"levels; 2 to 16"):
            formats.pack_levels(models)
    with pytest.raises(UsageError, match="level 1 is another graph"):
        formats.pack_levels([one, other])
    for level in (1, -1):
        with pytest.raises(UsageError, match="one level, 0"):
            formats.unpack(formats.pack(one), level=level)
    with pytest.raises(UsageError, match=r"level 3: this file has 3 levels, 0 \(the loosest\) to 2"):
        formats.unpack(formats.pack_levels(chain()), level=3)
    assert formats.levels(mlp(width=8)) == formats.levels(b"") == 1


def test_hostile_headers_are_refused() -> None:
    packed = formats.pack_levels(chain((30, 40)))
    for at, value in ((5, 0), (5, 1), (5, 17), (5, 255), (4, 8), (4, 6), (3, 0x30), (3, 0x50)):
        hostile = bytearray(packed)
        hostile[at] = value
        with pytest.raises(FormatError):
            formats.unpack(sealed(bytes(hostile)))
    more, fewer = bytearray(packed), bytearray(packed)
    more[5], fewer[5] = 4, 2
    with pytest.raises(FormatError):
        formats.unpack(sealed(bytes(more)), level=3)
    with pytest.raises(FormatError, match="bytes after the last tensor"):
        formats.sections(sealed(bytes(fewer)))


@pytest.mark.parametrize("at", range(0, 300, 7))
def test_damage_in_a_level_is_an_error_or_other_values(at: int) -> None:
    """With a right checksum: whatever the bytes say, tensors of that shape or an error come."""
    packed = bytearray(formats.pack_levels(chain((30, 40))))
    packed[len(packed) - 5 - at] ^= 0x55
    try:
        loose, tight = (tensors(formats.unpack(sealed(bytes(packed)), level=k))["w"] for k in (0, 2))
    except FormatError:
        return
    assert tight.shape == loose.shape


def test_a_cut_file_is_refused() -> None:
    packed = formats.pack_levels(chain((30, 40)))
    for end in range(len(packed) - 1, 5, -97):
        with pytest.raises(FormatError):
            formats.unpack(sealed(packed[:end]), level=2)
