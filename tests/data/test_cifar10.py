"""CIFAR-10 in its three layouts, good and hostile; the image code against a slow encoder."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import data
from secateur.data import cifar10
from secateur.data.arrays import read_arrays
from secateur.data.image_code import read_images
from secateur.data.unpacked import keep_unpacked
from secateur.errors import FormatError, UsageError

HERE = os.environ.get("SECATEUR_DATA")
needs_data = pytest.mark.skipif(not HERE, reason="SECATEUR_DATA is not set")

OWN = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, 2), (-2, 1), (-2, -1), (-1, -2)]
EARLIER = [(0, 0), (0, -1), (-1, 0), (-1, -1), (-1, 1)]


def encode(images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """The encoder, one image and one pixel at a time in Python integers, with random coefficients and tables."""
    g = np.random.default_rng(seed)
    n, rows, columns, channels = images.shape
    order = g.permutation(channels)
    pw = [g.integers(-900, 1900, (7, 10 + 5 * q + 1)) for q in range(channels)]
    mw = [g.integers(-3, 40, (7, 11 + 3 * q + 1)) for q in range(channels)]
    th = np.sort(g.integers(0, 9000, (channels, 31)), axis=1)
    freq = np.full((channels, 32, 256), 1)
    for table in freq.reshape(-1, 256):
        table[g.integers(0, 256, 200)] += 5
        table[0] += 16384 - table.sum()

    def zone(r: int, c: int) -> int:
        if r == 0:
            return 3 if c == 0 else 1
        return {0: 2, columns - 1: 4, 1: 5, columns - 2: 6}.get(c, 0)

    steps = []  # per step, per image: (turn, context, symbol)
    error = np.zeros(images.shape, int)
    for turn, channel in enumerate(order):
        for r in range(rows):
            for c in range(columns):
                symbols = []
                for i in range(n):

                    def at(field: np.ndarray, ch: int, dr: int, dc: int, i: int = i, r: int = r, c: int = c) -> int:
                        inside = r + dr >= 0 and 0 <= c + dc < columns
                        return int(field[i, r + dr, c + dc, ch]) if inside else 0

                    f = [at(images, channel, *o) for o in OWN]
                    f += [at(images, ch, *o) for ch in order[:turn] for o in EARLIER]
                    k = [int(v) for v in pw[turn][zone(r, c)]]
                    guess = min(255, max(0, (sum(a * b for a, b in zip(f, k, strict=False)) + k[-1] + 2048) >> 12))
                    w, no, nw, ne, ww, nn = f[:6]
                    rough = [abs(w - nw), abs(no - nw), abs(no - ne), abs(w - ww), abs(no - nn)]
                    rough += [at(error, channel, *o) for o in OWN[:6]]
                    rough += [at(error, ch, *o) for ch in order[:turn] for o in EARLIER[:3]]
                    k = [int(v) for v in mw[turn][zone(r, c)]]
                    busy = sum(a * b for a, b in zip(rough, k, strict=False)) + k[-1]
                    value = int(images[i, r, c, channel])
                    error[i, r, c, channel] = abs(value - guess)
                    symbols.append((turn, int((th[turn] <= busy).sum()), (value - guess) % 256))
                steps.append(symbols)
    state, words = [1 << 16] * n, []
    for symbols in reversed(steps):
        for i in reversed(range(n)):
            turn, context, symbol = symbols[i]
            f, start = int(freq[turn, context, symbol]), int(freq[turn, context, :symbol].sum())
            if state[i] >= f << 18:
                words.append(state[i] & 65535)
                state[i] >>= 16
            state[i] = (state[i] // f << 14) + state[i] % f + start
    return {
        "shape": np.array(images.shape, np.int32),
        "order": order.astype(np.uint8),
        "labels": np.arange(n, dtype=np.uint8),
        "pw": np.concatenate([p.ravel() for p in pw]).astype(np.int32),
        "mw": np.concatenate([m.ravel() for m in mw]).astype(np.int32),
        "th": th.astype(np.int32),
        "freq": freq.astype(np.uint16),
        "state": np.array(state, np.uint32),
        "words": np.array(words[::-1], np.uint16),
    }


SIZE = (6, 7, 3)


@pytest.fixture(scope="module")
def packed() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    images = np.random.default_rng(3).integers(0, 256, (4, *SIZE)).astype(np.uint8)
    images[1] = 255
    images[2, 2:, 3:] //= 9
    return images, encode(images)


def test_image_code_gives_back_what_the_encoder_took(tmp_path: Path, packed) -> None:
    images, arrays = packed
    np.savez(tmp_path / "a.npz", **arrays)
    found, labels = read_images(tmp_path / "a.npz", SIZE, 10)
    assert np.array_equal(found, images)
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": lambda w: w[:-1]}, "ends too early"),
        ({"words": lambda w: np.append(w, w[:1])}, "does not end where the encoder began"),
        ({"words": lambda w: w ^ np.uint16(1)}, "ends too early|does not end"),
        ({"state": lambda s: s[:-1]}, "disagree"),
        ({"state": lambda s: s[:0]}, "0 images"),
        ({"state": lambda s: s.astype(np.int64)}, "array 'state' is int64"),
        ({"shape": lambda s: s * 2}, "disagree"),
        ({"labels": lambda a: a[:-1]}, "disagree"),
        ({"order": lambda o: o * 0}, "not a permutation"),
        ({"freq": lambda f: f[:, :, ::-1] * 2}, "frequency table"),
        ({"th": lambda t: t[:, ::-1].copy()}, "thresholds"),
        ({"pw": lambda p: p[:-1]}, "array 'pw' is int32"),
        ({"pw": lambda p: p + np.int32(2**30)}, "coefficient"),
        ({"mw": lambda p: p.astype(object)}, "Object|object"),
    ],
)
def test_damaged_image_code_is_one_clear_format_error(tmp_path: Path, packed, change, message: str) -> None:
    arrays = {k: change[k](v) if k in change else v for k, v in packed[1].items()}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FormatError, match=message):
        read_images(tmp_path / "a.npz", SIZE, 10)


def test_truncated_and_flipped_archives_never_escape_as_other_errors(tmp_path: Path, packed) -> None:
    images, arrays = packed
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    raw = buffer.getvalue()
    g = np.random.default_rng(0)
    for trial in range(120):
        bad = bytearray(raw)
        if trial < 40:
            bad = bad[: int(g.integers(0, len(raw)))]
        else:
            for at in g.integers(0, len(raw), 1 + trial % 3):
                bad[at] ^= 1 << int(g.integers(8))
        path.write_bytes(bytes(bad))
        try:
            assert np.array_equal(read_images(path, SIZE, 10)[0], images)  # flips in zip time stamps are harmless
        except FormatError:
            continue


def test_arrays_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(10_000_000, np.uint8))
    with pytest.raises(FormatError, match="larger than the 1000 bytes"):
        read_arrays(path, {"x": ("uint8", (None,))}, 1000)
    with zipfile.ZipFile(path, "w") as z:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 60,)})
        z.writestr("x.npy", head.getvalue())
        z.writestr("y.npy", b"not an array")
    with pytest.raises(FormatError, match="0 bytes for"):
        read_arrays(path, {"x": ("uint8", (None,))}, 1000)
    with pytest.raises(FormatError, match=r"not a \.npy array"):
        read_arrays(path, {"y": ("uint8", (None,))}, 1000)
    with pytest.raises(FormatError, match="'z' is missing"):
        read_arrays(path, {"z": ("uint8", (None,))}, 1000)
    with pytest.raises(FormatError, match="cannot be read"):
        read_arrays(tmp_path / "absent.npz", {}, 1000)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Batches of 20 records instead of 10,000, splits to match, and a cache folder of its own."""
    monkeypatch.setattr(cifar10, "_PART", 20)
    monkeypatch.setattr(cifar10, "N_TRAIN", 80)
    monkeypatch.setattr(cifar10, "N_VALID", 6)
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    (tmp_path / "cifar10").mkdir()
    return tmp_path


def batches() -> dict[str, bytes]:
    g = np.random.default_rng(1)
    out = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        table = g.integers(0, 256, (20, 3073)).astype(np.uint8)
        table[:, 0] %= 10
        out[f"{name}.bin"] = table.tobytes()
    return out


def test_binary_batches(small: Path) -> None:
    files = batches()
    for name, raw in files.items():
        (small / "cifar10" / name).write_bytes(raw)
    splits = data.load("cifar10", small)
    assert [p.n_examples for p in (splits.train, splits.valid, splits.test)] == [80, 6, 34]
    record = np.frombuffer(files["data_batch_1.bin"], np.uint8)[3073 : 2 * 3073]
    assert splits.train.targets[1] == record[0]
    green = splits.train.inputs[1, 1] * 0.224 + 0.456
    np.testing.assert_allclose(green.numpy() * 255, record[1025:2049].reshape(32, 32), atol=1e-3)
    assert splits.test.targets[14] == np.frombuffer(files["test_batch.bin"], np.uint8)[0]
    images, labels = cifar10.read_test(small, download=False)
    assert images.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(labels, splits.test.targets[14:].numpy())
    unseen = data.load("cifar10_pretrained", small)
    assert [p.n_examples for p in (unseen.train, unseen.valid, unseen.test)] == [94, 6, 20]
    assert torch.equal(unseen.test.inputs, splits.test.inputs[14:])


def test_binary_batches_in_the_folder_of_the_archive(small: Path) -> None:
    folder = small / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir()
    for name, raw in batches().items():
        (folder / name).write_bytes(raw)
    assert data.load("cifar10", small).train.n_examples == 80


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("data_batch_2.bin", b"\0" * (20 * 3073 - 1), r"data_batch_2\.bin: 61459 bytes"),
        ("data_batch_2.bin", b"\0" * (20 * 3073 + 1), "more than 61460 bytes"),
        ("data_batch_2.bin", b"", "0 bytes"),
        ("data_batch_2.bin", b"\x0a" + b"\0" * (20 * 3073 - 1), "data_batch_2: label 10 in row 0"),
        ("test_batch.bin", None, "cannot be read"),
    ],
)
def test_damaged_batches(small: Path, name: str, raw: bytes | None, message: str) -> None:
    for file, good in batches().items():
        (small / "cifar10" / file).write_bytes(good)
    if raw is None:
        (small / "cifar10" / name).unlink()
    else:
        (small / "cifar10" / name).write_bytes(raw)
    with pytest.raises(FormatError, match=message):
        data.load("cifar10", small)


class _Bomb:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("where", ["data_batch_1", "cifar-10-batches-py/data_batch_1"])
def test_pickled_batches_are_refused_and_never_run(small: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    path = small / "cifar10" / where
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(FormatError, match=r"pickle can run any code.*cifar-10-binary\.tar\.gz"):
        data.load("cifar10", small)
    assert not (small / "executed").exists()


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in {"readme.html": b"x", **files}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        archive.addfile(tarfile.TarInfo("../../escape"), io.BytesIO())


def test_archive_is_read_in_place(small: Path) -> None:
    path = small / cifar10.ARCHIVE
    write_archive(path, batches())
    before = sorted(small.rglob("*"))
    assert data.load("cifar10", small).test.n_examples == 34
    assert len(cifar10.read_test(small, download=False)[1]) == 20
    assert sorted(small.rglob("*")) == before
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FormatError, match=r"damaged or truncated|lacks"):
        data.load("cifar10", small)
    files = batches()
    del files["data_batch_3.bin"]
    write_archive(path, files)
    with pytest.raises(FormatError, match="lacks data_batch_3"):
        data.load("cifar10", small)
    path.write_bytes(b"junk")
    with pytest.raises(FormatError, match="damaged"):
        data.load("cifar10", small)


def test_packed_parts_are_unpacked_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(path: Path, size: tuple[int, int, int], n: int):
        calls.append(path.name)
        count = 4 if "test" in path.name else 20
        return np.full((count, *size), len(calls), np.uint8), np.zeros(count, np.uint8)

    monkeypatch.setattr(cifar10, "read_images", slow)
    names = [f"train_{i}" for i in range(1, 6)] + ["test_first1000"]
    for i, name in enumerate(names):
        (small / "cifar10" / f"{name}.npz").write_bytes(bytes([i]))
    first = data.load("cifar10", small)
    again = data.load("cifar10", small)
    assert len(calls) == 6
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert first.test.n_examples == 14 + 4
    (small / "cifar10" / "train_2.npz").write_bytes(b"changed")
    data.load("cifar10", small)
    assert calls[6:] == ["train_2.npz"]
    (small / "cifar10" / "train_2.npz").unlink()
    with pytest.raises(FormatError, match=r"train_2\.npz is missing"):
        data.load("cifar10", small)


def test_a_damaged_or_unwritable_cache_costs_time_only(tmp_path: Path) -> None:
    source = tmp_path / "s.npz"
    source.write_bytes(b"source")
    part = (np.ones((2, 1, 1, 3), np.uint8), np.array([1, 2], np.uint8))
    cache = tmp_path / "cache"
    keep_unpacked(source, cache, (1, 1, 3), lambda: part)
    (kept,) = cache.iterdir()
    images, labels = keep_unpacked(source, cache, (1, 1, 3), pytest.fail)
    assert np.array_equal(images, part[0])
    assert np.array_equal(labels, part[1])
    for damage in (kept.read_bytes()[:-1], b"", pickle.dumps(_Bomb())):
        kept.write_bytes(damage)
        images, _ = keep_unpacked(source, cache, (1, 1, 3), lambda: part)
        assert np.array_equal(images, part[0])
    assert not Path("executed").exists()
    (tmp_path / "file").write_bytes(b"")
    images, _ = keep_unpacked(source, tmp_path / "file", (1, 1, 3), lambda: part)
    assert images is part[0]


def test_absent_set_is_a_usage_error(small: Path) -> None:
    with pytest.raises(UsageError, match="cifar10: the data set is not at"):
        data.load("cifar10", small)


def test_split_of_rows_is_the_documented_one() -> None:
    assert (cifar10.N_TRAIN, cifar10.N_VALID) == (40_000, 2_000)


@pytest.mark.data
@needs_data
def test_real_test_part_is_lossless_and_pretrained_net_classifies_it() -> None:
    from secateur import zoo

    images, labels = read_images(Path(HERE) / "cifar10" / "test_first1000.npz", (32, 32, 3), 10_000)
    assert np.bincount(labels).tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
    part = cifar10._data(images[:200], labels[:200], 100, "test")
    net = zoo.resnet20(pretrained=True, data_dir=HERE).eval()
    with torch.no_grad():
        correct = sum(int((net(x).argmax(1) == y).sum()) for x, y in part)
    assert correct >= 175  # 915 of all 1,000; so 183 of 200 expected, standard error 4
