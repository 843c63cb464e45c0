"""N-MNIST: the published folders, their archives and packed recordings are one set; damaged ones are one error."""

from __future__ import annotations

import lzma
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import data
from secateur.data import nmnist
from secateur.errors import EnvironmentFailure, FormatError, UsageError

Recording = tuple[np.ndarray, int]  # events [n, 4]: x, y, polarity, time in us; digit


def recordings(seed: int, n: int = 12) -> list[Recording]:
    """Random events, digits in ascending order as the published names have them."""
    g = np.random.default_rng(seed)
    found = []
    for i in range(n):
        k = int(g.integers(40, 90))
        time = np.sort(g.integers(0, 300_000, k))
        events = np.stack([g.integers(0, 34, k), g.integers(0, 34, k), g.integers(0, 2, k), time], 1)
        found.append((events, i * 10 // n))
    return found


def published(events: np.ndarray) -> bytes:
    """Five bytes an event."""
    x, y, p, t = events.T
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes()


def write_published(folder: Path, archive: bool = False, **more: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, seed in (("Train", 0), ("Test", 1)):
        files = {f"{part}/{d}/{i:05}.bin": published(e) for i, (e, d) in enumerate(recordings(seed))}
        files |= {f"{part}/{k.replace('__', '/')}.bin": v for k, v in more.items()}
        if archive:
            with zipfile.ZipFile(folder / f"{part}.zip", "w") as z:
                for name, raw in files.items():
                    z.writestr(name, raw)
        else:
            for name, raw in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(raw)


def packed(seed: int, **changes: np.ndarray) -> dict[str, np.ndarray]:
    found = recordings(seed)
    events = np.concatenate([e for e, _ in found])
    steps = np.concatenate([np.diff(e[:, 3], prepend=0) for e, _ in found])

    def xz(values: np.ndarray) -> np.ndarray:
        return np.frombuffer(lzma.compress(values.astype(np.uint8).tobytes()), np.uint8)

    arrays = {
        "lengths": np.array([len(e) for e, _ in found], np.int32),
        "labels": np.array([d for _, d in found], np.uint8),
        **{"x_xz": xz(events[:, 0]), "y_xz": xz(events[:, 1]), "p_xz": xz(np.packbits(events[:, 2] == 1))},
        **{"dt_lo_xz": xz(steps & 255), "dt_hi_xz": xz(steps >> 8)},
    }
    return {**arrays, **changes}


def test_folders_archives_and_packed_recordings_are_the_same_set(tmp_path: Path) -> None:
    write_published(tmp_path / "a" / "nmnist")
    write_published(tmp_path / "b", archive=True)
    (tmp_path / "c").mkdir()
    np.savez(tmp_path / "c" / "train.npz", **packed(0))
    np.savez(tmp_path / "c" / "test.npz", **packed(1))
    first, *others = (data.load("nmnist", tmp_path / name) for name in "abc")
    assert [p.n_examples for p in (first.train, first.valid, first.test)] == [10, 2, 12]
    for other in others:
        for part in ("train", "valid", "test"):
            one, two = getattr(first, part), getattr(other, part)
            assert torch.equal(one.inputs, two.inputs)
            assert torch.equal(one.targets, two.targets)


def test_every_event_is_counted_in_its_tenth_of_the_recording() -> None:
    columns = [np.array(c, np.int64) for c in ([3, 3, 3, 33], [5, 5, 5, 0], [1, 1, 0, 0], [100, 110, 150, 199])]
    found = nmnist.frames((columns[0], columns[1], columns[2], columns[3]), "x")
    assert found.shape == nmnist.SPEC.shape
    assert found.sum() == 4
    assert found[0, 1, 5, 3] == 1  # time 0 of 100
    assert found[1, 1, 5, 3] == 1  # 10
    assert found[5, 0, 5, 3] == 1  # 50
    assert found[9, 0, 0, 33] == 1  # 99, the last


def test_a_clock_that_overflows_goes_on_and_its_sign_is_no_event(tmp_path: Path) -> None:
    events = np.array([[1, 2, 1, 100], [0, 240, 0, 0], [3, 4, 0, 50]])
    (tmp_path / "e").write_bytes(published(events))
    x, y, polarity, time = nmnist._events((tmp_path / "e").read_bytes(), "e")
    assert (x.tolist(), y.tolist(), polarity.tolist()) == ([1, 3], [2, 4], [1, 0])
    assert time.tolist() == [100, 50 + 8192]


def test_of_a_large_part_evenly_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmnist, "MOST", 5)
    write_published(tmp_path)
    splits = data.load("nmnist", tmp_path)
    assert splits.test.targets.tolist() == [d for _, d in recordings(1)][::3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.array([-5], np.int32)}, "1 to 100000 events"),
        ({"lengths": np.full(12, 2_000_000, np.int32)}, "1 to 100000 events"),
        ({"lengths": np.ones(12, np.int32)}, "12 are needed"),
        ({"labels": np.zeros(3, np.uint8)}, "3 labels"),
        ({"labels": np.full(12, 17, np.uint8)}, "label 17"),
        ({"x_xz": np.ones(64, np.uint8)}, "damaged"),
        ({"y_xz": packed(0)["dt_lo_xz"]}, "outside of 34 x 34"),
        ({"labels": np.zeros(12, np.int64)}, "uint8"),
    ],
)
def test_damaged_packed_recordings_are_one_error(tmp_path: Path, change: dict, message: str) -> None:
    np.savez(tmp_path / "train.npz", **packed(0, **change))
    np.savez(tmp_path / "test.npz", **packed(1))
    with pytest.raises(FormatError, match=message):
        data.load("nmnist", tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"1234567", "7 bytes; events of 5 bytes"),
        (b"", "recording of 0 events"),
        (published(np.array([[1, 1, 0, 90], [1, 1, 0, 10]])), "before the one that precedes it"),
        (published(np.array([[40, 1, 0, 90]])), "outside of 34 x 34"),
    ],
)
def test_damaged_published_recordings_are_named(tmp_path: Path, raw: bytes, message: str) -> None:
    write_published(tmp_path / "a", **{"5__77777": raw})
    write_published(tmp_path / "b", archive=True, **{"5__77777": raw})
    for place in "ab":
        with pytest.raises(FormatError, match=message):
            data.load("nmnist", tmp_path / place)


def test_archives_that_are_none_and_missing_parts_are_named(tmp_path: Path) -> None:
    write_published(tmp_path / "a", archive=True, strange=b"")
    with pytest.raises(FormatError, match="lies in no folder of a digit"):
        data.load("nmnist", tmp_path / "a")
    (tmp_path / "a" / "Train.zip").write_bytes(b"no archive")
    with pytest.raises(FormatError, match=r"Train\.zip: not a readable zip archive"):
        data.load("nmnist", tmp_path / "a")
    (tmp_path / "b" / "Train").mkdir(parents=True)
    with pytest.raises(FormatError, match="no recording is in it"):
        data.load("nmnist", tmp_path / "b")
    np.savez(tmp_path / "b" / "train.npz", **packed(0))
    with pytest.raises(FormatError, match=r"lacks its test part; put test\.npz or Test or Test\.zip there"):
        data.load("nmnist", tmp_path / "b")


def test_recordings_are_fetched_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    remote = type(nmnist.REMOTE)((nowhere,), nmnist.REMOTE.hashes, nmnist.REMOTE.places)
    monkeypatch.setattr(nmnist, "REMOTE", remote)
    with pytest.raises(UsageError, match="ask for the download"):
        data.load("nmnist", tmp_path)
    with pytest.raises(EnvironmentFailure, match=r"Train\.zip could not be downloaded .*39c25547"):
        data.load("nmnist", tmp_path, download=True)


@pytest.mark.skipif(not os.environ.get("SECATEUR_DATA"), reason="SECATEUR_DATA is not set")
def test_the_real_recordings_are_those_that_were_published() -> None:
    splits = data.load("nmnist")
    assert [p.n_examples for p in (splits.train, splits.valid, splits.test)] == [834, 166, 100]
    # 3,856 events a recording of the test part on average
    assert float(splits.test.inputs.sum()) / 100 == pytest.approx(3856, abs=1)
