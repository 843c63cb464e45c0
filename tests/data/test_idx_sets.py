"""IDX reading, good and hostile; the digits, MNIST and Fashion-MNIST splits; downloads without a network."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import struct
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import data
from secateur.data import download, mnist
from secateur.data.idx import read_idx
from secateur.errors import EnvironmentFailure, FormatError, UsageError
from secateur.shell import saving

HERE = os.environ.get("SECATEUR_DATA")
needs_data = pytest.mark.skipif(not HERE, reason="SECATEUR_DATA is not set")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder: Path, n: int = 5010, n_test: int = 20, pack=lambda b: b, suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(0)
    for stem, count in zip(mnist.FILES, (n, n, n_test, n_test), strict=True):
        shape = (count, 28, 28) if "images" in stem else (count,)
        raw = idx(g.integers(0, 256 if "images" in stem else 10, shape).astype(np.uint8))
        (folder / (stem + suffix)).write_bytes(pack(raw))


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")])
def test_reads_plain_gzip_and_xz(tmp_path: Path, pack, suffix: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / ("a" + suffix)
    path.write_bytes(pack(idx(array)))
    found = read_idx(path, (None, 3, 4))
    assert np.array_equal(found, array)
    assert found.flags.writeable


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\0\0\x0d" + GOOD[3:], "not an IDX file of unsigned bytes"),
        (b"\x80\x04" + GOOD[2:], "not an IDX file"),
        (GOOD[:3] + b"\x02" + GOOD[4:], "rank 2, rank 3 is needed"),
        (GOOD[:9], "ends inside its header"),
        (GOOD[:-1], "11 of 12 values, the file is truncated"),
        (GOOD + b"x", "more bytes than its header announces"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "at most"),
        (GOOD[:8] + b"\0\0\0\x03" + GOOD[12:], r"holds an array \[3, 3, 2\], \[n, 2, 2\] is needed"),
        (gzip.compress(GOOD, mtime=0)[:-6], "damaged or truncated"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "damaged or truncated"),
        (lzma.compress(GOOD)[:-20], "damaged or truncated"),
        (b"\x1f\x8b" + b"junk" * 9, "damaged or truncated"),
    ],
)
def test_damaged_idx_is_one_clear_format_error(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=message):
        read_idx(path, (None, 2, 2))


def test_an_archive_that_unpacks_far_beyond_its_header_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(GOOD + b"\0" * 50_000_000, mtime=0))
    with pytest.raises(FormatError, match="more bytes than its header announces"):
        read_idx(path, (None, 2, 2))


def test_every_bit_flip_of_a_packed_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD, mtime=0)
    path = tmp_path / "f"
    want = read_idx_bytes(path, packed)
    for byte in range(len(packed)):
        raw = bytearray(packed)
        raw[byte] ^= 1 << (byte % 8)
        with contextlib.suppress(FormatError):  # what is read all the same: a flip in gzip's own time stamp or name
            assert np.array_equal(read_idx_bytes(path, bytes(raw)), want)


def read_idx_bytes(path: Path, raw: bytes) -> np.ndarray:
    path.write_bytes(raw)
    return read_idx(path, (None, 2, 2))


def test_splits_of_a_set_are_fixed_and_disjoint(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist")
    splits = data.load("mnist", tmp_path)
    again = data.load("mnist", tmp_path / "mnist", batch_size=4)
    assert (splits.train.n_examples, splits.valid.n_examples, splits.test.n_examples) == (10, 5000, 20)
    assert torch.equal(splits.train.inputs, again.train.inputs)
    assert len(again.train) == 3
    train, valid = mnist.fixed_split(60_000, 5000, "mnist")
    assert len(np.intersect1d(train, valid)) == 0
    assert len(train) == 55_000
    assert valid[:3].tolist() == mnist.fixed_split(60_000, 5000, "mnist")[1][:3].tolist() == VALID_STARTS


VALID_STARTS = [12, 14, 32]  # the split is part of the interface: a change would mix validation into training


def test_set_files_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    write_set(folder)
    labels = folder / mnist.FILES[3]
    labels.write_bytes(idx(np.full(20, 10, np.uint8)))
    with pytest.raises(FormatError, match="mnist test: label 10 in row 0; labels must be 0 to 9"):
        data.load("mnist", tmp_path)
    labels.write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(FormatError, match="20 images but 19 labels"):
        data.load("mnist", tmp_path)
    (folder / mnist.FILES[1]).write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(FormatError, match="5010 training images but 7 labels"):
        data.load("mnist", tmp_path)
    labels.unlink()
    with pytest.raises(FormatError, match="lacks t10k-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", n_test=0)
    with pytest.raises(FormatError, match="mnist test: the data set is empty"):
        data.load("mnist", tmp_path)
    write_set(tmp_path / "mnist", n=0)
    with pytest.raises(FormatError, match="mnist: 0 training examples"):
        data.load("mnist", tmp_path)


def test_absent_set_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    with pytest.raises(UsageError, match=r"neither --data-dir nor SECATEUR_DATA is set.*download"):
        data.load("mnist")
    with pytest.raises(UsageError, match=str(tmp_path / "mnist")):
        data.load("mnist", tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        data.load("mnist", tmp_path / "nowhere")


def test_download_only_when_asked_with_the_published_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    asked: list[tuple[str, str]] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append((url, known_hash))
        if len(asked) == 1:
            raise ValueError("hash differs")  # the first host serves a changed file: the next is tried
        if not (Path(path) / mnist.FILES[0]).exists():
            write_set(Path(path))
        return str(Path(path) / fname)

    monkeypatch.setitem(__import__("sys").modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    assert data.load("mnist", download=True).test.n_examples == 20
    assert asked[0][0].startswith("https://ossci-datasets")
    assert asked[1][0].startswith("https://storage.googleapis.com/cvdf-datasets/mnist/train-images")
    assert all(digest.startswith("md5:") and len(digest) == 36 for _, digest in asked)
    n = len(asked)
    assert data.load("mnist").test.n_examples == 20  # found in the cache now, without the network
    assert len(asked) == n


def test_failed_download_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setitem(__import__("sys").modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    with pytest.raises(EnvironmentFailure, match=r"could not be downloaded .*no route to host"):
        download.fetch("mnist", mnist.REMOTE, tmp_path)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    assert saving.cache_folder() == tmp_path
    monkeypatch.delenv("SECATEUR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert saving.cache_folder() == tmp_path / "secateur"


def test_digits_are_stratified_and_scaled() -> None:
    splits = data.load("digits")
    assert [p.n_examples for p in (splits.train, splits.valid, splits.test)] == [1097, 300, 400]
    whole = torch.bincount(torch.cat([p.targets for p in (splits.train, splits.valid, splits.test)]))
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    for part in (splits.train, splits.valid, splits.test):
        share = torch.bincount(part.targets) - whole * part.n_examples / 1797
        assert share.abs().max() <= 1.0
    assert splits.train.inputs.shape[1:] == (1, 8, 8)
    assert (splits.train.inputs.min(), splits.train.inputs.max()) == (0, 1)


@pytest.mark.data
@needs_data
def test_real_mnist() -> None:
    splits = data.load("mnist", HERE)
    assert [p.n_examples for p in (splits.train, splits.valid, splits.test)] == [55_000, 5_000, 10_000]
    everything = torch.bincount(torch.cat([splits.train.targets, splits.valid.targets]))
    assert everything.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert splits.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(splits.train.inputs.mean() - 0.1307) < 1e-3


@pytest.mark.data
@needs_data
def test_real_fashion_mnist() -> None:
    splits = data.load("fashion_mnist", HERE)
    assert torch.bincount(splits.test.targets).tolist() == [1000] * 10
    assert splits.spec.classes[9] == "Ankle boot"
    assert abs(splits.train.inputs.std() - 0.3530) < 1e-3
