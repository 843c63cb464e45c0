"""Damaged `.sct` files: one test per way to be malformed, then mutations. Only FormatError, always with a place."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from secateur import formats
from secateur.errors import FormatError, UnsupportedError

onnx = pytest.importorskip("onnx")
native = pytest.importorskip("secateur.native._native")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def model(arrays, nodes=()):
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()]
    graph = helper.make_graph(list(nodes), "g", [], [], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


@pytest.fixture(scope="module")
def small():
    g = np.random.default_rng(0)
    w = np.where(g.random((12, 4, 3, 3)) < 0.2, g.choice(np.float32([-1, -0.5, 0.25, 2]), (12, 4, 3, 3)), 0)
    relu = helper.make_node("Conv", ["x", "conv1.weight"], ["y"])
    graph = helper.make_graph(
        [relu],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 12, 6, 6])],
        [numpy_helper.from_array(w.astype(np.float32), "conv1.weight")],
    )
    return formats.pack(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


@pytest.fixture(scope="module")
def large():
    g = np.random.default_rng(0)
    packed = formats.pack(model({"a": g.normal(size=(150, 150)).astype(np.float32), "b": np.arange(9)}))
    assert packed[4] == 1
    return packed


def sealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def leb(x):
    return bytes([x & 127 | 128]) + leb(x >> 7) if x > 127 else bytes([x])


def section(data, at):
    """Length of the section that starts at `at`, and where the next one starts."""
    size = shift = 0
    while True:
        size |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return size, at + size + 4


def refused(data, match, offset=None):
    with pytest.raises(FormatError, match=match) as e:
        formats.unpack(data)
    assert e.value.offset is not None
    if offset is not None:
        assert e.value.offset == offset
    with pytest.raises(FormatError):
        formats.sections(data)


def test_not_a_sct(small):
    refused(b"", "does not start with 'SCT'", 0)
    refused(b"\x08\x08", "does not start with 'SCT'", 0)
    refused(b"PK\x03\x04" + small, "does not start with 'SCT'", 0)


def test_header_cut_off(small):
    refused(small[:7], "header is incomplete", 7)


def test_newer_major_version_says_so(small):
    refused(sealed(small[:3] + b"\x50" + small[4:-4]), "version 5.0 is newer than this reader", 3)


def test_version_zero(small):
    refused(sealed(small[:3] + b"\x00" + small[4:-4]), "version 0", 3)


def test_newer_minor_version_may_append(small, large):
    newer = sealed(small[:3] + b"\x21" + small[4:-4] + b"something new")
    assert formats.unpack(newer) == formats.unpack(small)
    refused(sealed(small[:-4] + b"something new"), "bytes after the last tensor")
    # Sectioned: the first section's checksum covers the header, so it is renewed as well.
    size, shift, at = 0, 0, 5
    while True:
        size |= (large[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if large[at - 1] < 128:
            break
    body = large[:3] + b"\x21" + large[4 : at + size]
    extra = b"\x03new"
    rest = large[at + size + 4 :]
    newer = sealed(body) + rest + sealed(extra)
    assert formats.unpack(newer) == formats.unpack(large)
    refused(newer[:-1] + bytes([newer[-1] ^ 1]), "checksum")


def test_unknown_flags(small):
    refused(sealed(small[:4] + b"\x04" + small[5:-4]), "unknown flags", 4)


def test_wrong_checksum(small):
    refused(small[:-1] + bytes([small[-1] ^ 1]), "checksum does not match", len(small) - 4)


def test_any_flipped_bit_is_found(small):
    for i in range(8 * len(small)):
        flipped = bytearray(small)
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(FormatError):
            formats.unpack(bytes(flipped))


def test_every_truncation_is_found(small, large):
    for n in range(len(small)):
        with pytest.raises(FormatError):
            formats.unpack(small[:n])
    for n in (*range(5, 60), *range(60, len(large), 997)):
        with pytest.raises(FormatError):
            formats.unpack(large[:n])


def test_truncated_with_a_good_checksum(small):
    for n in range(6, len(small) - 4):
        with pytest.raises(FormatError):
            formats.unpack(sealed(small[:n]))


def test_section_length_past_the_end(large):
    refused(large[:5] + b"\xff\xff\xff\x7f" + large[9:], "runs past the end", 5)
    refused(large[:5] + b"\xff" * 20, "cut off")
    refused(large[:5] + b"\x80\x00" + large[6:], "shortest form")


def test_section_checksum(large):
    flipped = bytearray(large)
    flipped[len(large) // 2] ^= 16
    refused(bytes(flipped), "section's checksum")


def test_section_longer_than_its_streams(large):
    # The last section, one byte longer and sealed again: what is left in it is no tensor.
    _, at = section(large, 5)
    size, after = section(large, at)
    assert after == len(large)
    grown = leb(size + 1) + large[after - 4 - size : -4] + b"\x00"
    refused(large[:at] + sealed(grown), "bytes after the last tensor")


class Writer:
    """The coder of docs/format.md, section 2, for streams no writer would make."""

    def __init__(self):
        self.low, self.range, self.out = 0, 1 << 56, 0  # `out`: the digits shifted out, as one number
        self.shifted, self.counters = 0, {}

    def _renew(self):
        while self.range < 1 << 48:
            self.low, self.range, self.shifted = self.low << 8, self.range << 8, self.shifted + 1

    def bit(self, bit, p=32768):
        ones = (self.range >> 16) * p
        self.low, self.range = (self.low, ones) if bit else (self.low + ones, self.range - ones)
        self._renew()
        return self

    def bits(self, value, n):
        self.range >>= n
        self.low += value * self.range
        self._renew()
        return self

    def number(self, value):
        """By the header's own number S, whose counters live on."""
        e = (value + 1).bit_length() - 1

        def digit(name, bit):
            p, n = self.counters.get(name, (1 << 21, 0))
            self.bit(bit, min(max(p >> 6, 1), 65535))
            self.counters[name] = (p + ((((bit << 22) - p) * (131072 // (2 * n + 3))) >> 16), n + 1)

        for i in range(e):
            digit(i, 1)
        digit(e, 0)
        node, left = 1, e
        while left > max(e - 3, 0):
            left -= 1
            bit = (value + 1) >> left & 1
            digit((e, node), bit)
            node = 2 * node + bit
        while left > 0:
            take = min(left, 16)
            left -= take
            self.bits((value + 1) >> left & (1 << take) - 1, take)
        return self

    def bytes(self):
        return (self.low + self.range // 2 >> 8).to_bytes(self.shifted + 6, "big")


def with_last(stream, arrays=None):
    """A file of two tensors whose second one's stream is another."""
    g = np.random.default_rng(0)
    arrays = arrays or {"a": g.normal(size=(6, 8)).astype(np.float32), "b": g.normal(size=(8, 6)).astype(np.float32)}
    packed = formats.pack(model(arrays))
    assert not packed[4] & 1
    last = formats.sections(packed)[-2]
    assert last.kind == "tensor"
    return sealed(packed[: -4 - last.nbytes] + stream)


def same(back):
    return Writer().bit(0, 49152).bits(0, 2).bits(7, 3).bit(1, 57344).number(back - 1)


def matched(back=0, stride=6, shift=0, layout=0):
    return Writer().bit(0, 49152).bits(layout, 2).bits(6, 3).number(back).number(stride).bits(shift, 6)


def test_a_reference_by_hand_is_read():
    data = formats.unpack(with_last(same(1).bytes()[:2]))
    a, b = onnx.load_from_string(data).graph.initializer
    assert a.raw_data == b.raw_data


def test_reference_to_no_tensor():
    for back in (2, 3, 1000, 2**40):
        refused(with_last(same(back).bytes()), "before the first")


def test_reference_to_a_tensor_of_another_size():
    small = {"a": np.arange(7, dtype=np.float32), "b": np.random.default_rng(1).normal(size=9).astype(np.float32)}
    refused(with_last(same(1).bytes(), small), "another size")


def test_reference_of_another_layout():
    refused(with_last(Writer().bit(0, 49152).bits(1, 2).bits(7, 3).bit(1, 57344).number(0).bytes()), "dense layout")
    refused(with_last(matched(layout=2).bytes()), "dense layout")


def test_codec_of_a_later_version():
    refused(with_last(Writer().bit(0, 49152).bits(0, 2).bits(7, 3).bit(0, 57344).bytes()), "unknown codec")


def blocks(layout=0, codec=3, near=0):
    return Writer().bit(0, 49152).bits(near, 2).bits(7, 3).bit(0, 57344).bits(layout, 6).bits(codec, 6)


def version_3(data):
    return sealed(data[:3] + b"\x30" + data[4:-4])


def test_blocks_that_are_none():
    refused(with_last(blocks().bytes()), "unknown codec")  # of a file of version 2
    refused(version_3(with_last(blocks(near=2).bytes())), "beside another")
    refused(version_3(with_last(blocks(layout=1).bytes())), "unknown layout")
    for codec in (0, 6, 7, 63):
        refused(version_3(with_last(blocks(codec=codec).bytes())), "unknown codec of blocks")
    one_axis = {"a": np.arange(7, dtype=np.float32), "b": np.random.default_rng(1).normal(size=9).astype(np.float32)}
    refused(version_3(with_last(blocks().bits(3, 6).bits(0, 6).bytes(), one_axis)), "two axes")
    # [8, 6] in blocks of 4 x 1 are 12: the length of that number, then 15 of them, cannot be.
    most = blocks().bits(3, 6).bits(0, 6).bit(1, 39321).bit(1, 43690).bit(1, 32768)
    refused(version_3(with_last(most.bits(7, 3).bytes())), "more kept blocks than")


def test_matched_codecs_do_not_exist_in_version_1():
    for stream in (same(1).bytes(), matched().bytes()):
        data = bytearray(with_last(stream))
        data[3] = 0x10
        refused(sealed(bytes(data[:-4])), "unknown codec")


def test_matched_history_that_is_none():
    refused(with_last(matched(back=2).bytes()), "before the first")
    odd = {"a": np.arange(3, dtype=np.int16) * 999, "b": np.random.default_rng(1).normal(size=9).astype(np.float32)}
    refused(with_last(matched(back=1, stride=3).bit(0, 16384).bytes(), odd), "another width")


def test_matched_rows_longer_than_the_tensor():
    for stride in (48, 49, 2**20 + 1, 2**61):
        refused(with_last(matched(stride=stride).bytes()), "rows are too long")


def test_matched_shift_beyond_the_mantissa():
    refused(with_last(matched(shift=24).bytes()), "trailing zero bits")


def test_matched_tensor_too_large():
    packed = formats.pack(model({"w": np.full((2**24 + 2), 3, np.uint8)}))
    last = formats.sections(packed)[-2]
    refused(sealed(packed[: -4 - last.nbytes] + matched(stride=0).bit(0, 16384).bytes()), "this large")


def nested(depth):
    """A tensor inside `depth` subgraphs."""
    inner = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(40.0), "deep"))
    graph = helper.make_graph([inner], "g", [], [helper.make_tensor_value_info("k", 11, None)])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["k"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("k", 11, None)])
    graph.input.append(helper.make_tensor_value_info("c", 9, []))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_subgraphs_are_looked_into_as_far_as_the_bound():
    shallow = nested(6).SerializeToString()
    packed = formats.pack(shallow, exact=True)
    assert formats.unpack(packed) == shallow
    assert len(packed) < 700
    # Protobuf's own writer stops at a hundred messages; by hand it goes on.
    deep = b"\x0a\x02xx"
    for _ in range(3000):
        for field in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            deep = bytes([field << 3 | 2]) + leb(len(deep)) + deep
    deep = b"\x3a" + leb(len(deep)) + deep
    assert formats.unpack(formats.pack(deep, exact=True)) == deep


def test_decompression_bomb_is_bounded():
    ones = model({f"w{i}": np.ones((512, 1024), np.float32) for i in range(2)})
    packed = formats.pack(ones)
    assert len(packed) < 100
    with pytest.raises(FormatError, match="limit"):
        formats.unpack(packed, limit=2**20)
    assert len(formats.unpack(packed)) > 2**22


def test_unbelievable_growth_is_refused():
    # 70 MB of ones would take 60 bytes: a reader takes that for damage, so a writer keeps them raw.
    big = np.ones((70, 1024, 128))
    assert len(formats.pack(model({"w": big}))) > big.nbytes


def test_refused_when_packing():
    with pytest.raises(FormatError):
        formats.pack(b"\x00\x01\x02")
    node = helper.make_node("Relu", ["nowhere"], ["y"])
    with pytest.raises(FormatError, match="nowhere"):
        formats.pack(model({"w": np.ones(3)}, [node]))
    with pytest.raises(UnsupportedError, match="complex"):
        formats.measure(np.ones(3, np.complex64))


def test_mutations_end_in_a_model_or_a_format_error(small, large):
    """Two seconds of random damage behind a good checksum, exact and sectioned files included."""
    exact = formats.pack(formats.unpack(small), exact=True)
    golden = Path(__file__).parents[1] / "formats/golden"
    others = [f.read_bytes() for f in sorted(golden.glob("*/*.sct"))] + [formats.pack(nested(2).SerializeToString())]
    seed = random.randrange(2**32)
    r = random.Random(seed)
    print("seed", seed)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        data = bytearray(r.choice([small, exact, large, *others]))
        for _ in range(r.randrange(1, 4)):
            at = r.randrange(5, len(data))
            how = r.randrange(4)
            if how == 0:
                data[at] ^= 1 << r.randrange(8)
            elif how == 1:
                data[at] = r.randrange(256)
            elif how == 2:
                del data[at : at + r.randrange(1, 9)]
            else:
                data[at:at] = r.randbytes(r.randrange(1, 9))
            if len(data) < 12:
                break
        body = bytes(data[:-4]) if not data[4] & 1 else bytes(data)
        with contextlib.suppress(FormatError, UnsupportedError):
            formats.unpack(sealed(body) if not data[4] & 1 else body, limit=2**26)


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0"])
def test_golden_files_still_read(version):
    folder = Path(__file__).parents[1] / "formats/golden" / version
    lines = folder.joinpath("SHA256").read_text().split()
    assert lines
    for name, digest in zip(lines[::2], lines[1::2], strict=True):
        onnx_bytes = formats.unpack(folder.joinpath(f"{name}.sct").read_bytes())
        assert hashlib.sha256(onnx_bytes).hexdigest() == digest, name
