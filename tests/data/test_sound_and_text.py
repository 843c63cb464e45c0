"""Spoken digits and film reviews: splits, what hostile or damaged files give, both layouts of the recordings."""

from __future__ import annotations

import gzip
import importlib
import lzma
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import data
from secateur.data import fsdd, sst2
from secateur.errors import EnvironmentFailure, FormatError, UsageError

needs_data = pytest.mark.skipif(not os.environ.get("SECATEUR_DATA"), reason="SECATEUR_DATA is not set")
PACKS = (None, lzma.compress, gzip.compress)  # told apart by the bytes, not by the name
TAKES = (0, 5, 10, 11)  # one of the test part, one of validation, two of training


def recordings() -> list[fsdd.Recording]:
    """A tone per digit, as long as real ones are, with a little noise of its own."""
    g = np.random.default_rng(0)
    made = []
    for digit in range(10):
        for take in TAKES:
            n = int(g.integers(2000, 6000))
            tone = 3000 * np.sin(2 * np.pi * (200 + 150 * digit) * np.arange(n) / 8000) + g.normal(0, 30, n)
            made.append((tone.astype(np.int16), digit, take))
    return made


def write_waves(folder: Path, rate: int = 8000, channels: int = 1) -> None:
    folder.mkdir(parents=True)
    for samples, digit, take in recordings():
        with wave.open(str(folder / f"{digit}_ann_{take}.wav"), "wb") as stream:
            stream.setparams((channels, 2, rate, 0, "NONE", ""))
            stream.writeframes(samples.astype("<i2").tobytes())


def packed(**changes: np.ndarray) -> dict[str, np.ndarray]:
    found = sorted(recordings(), key=lambda r: f"{r[1]}_ann_{r[2]}.wav")
    step = np.concatenate([np.diff(s.astype(np.int32), prepend=np.int32(0)) for s, _, _ in found])
    code = (step << 1) ^ (step >> 31)
    arrays = {
        "lengths": np.array([len(s) for s, _, _ in found], np.int32),
        "digit": np.array([d for _, d, _ in found], np.uint8),
        "take": np.array([t for _, _, t in found], np.uint8),
        "lo_xz": np.frombuffer(lzma.compress((code & 255).astype(np.uint8).tobytes()), np.uint8),
        "hi_xz": np.frombuffer(lzma.compress((code >> 8).astype("<u2").tobytes()), np.uint8),
    }
    return {**arrays, **changes}


def test_published_and_packed_recordings_are_the_same_set(tmp_path: Path) -> None:
    write_waves(tmp_path / "a" / "recordings")
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "fsdd.npz", **packed())
    a, b = data.load("fsdd", tmp_path / "a"), data.load("fsdd", tmp_path / "b")
    for one, two in ((a.train, b.train), (a.valid, b.valid), (a.test, b.test)):
        assert torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.targets, two.targets)
    assert [p.n_examples for p in (a.train, a.valid, a.test)] == [20, 10, 10]


def test_a_tone_lights_its_own_band_whatever_its_loudness() -> None:
    t = np.arange(4000) / 8000
    loud, soft = (fsdd.log_mel((gain * np.sin(2 * np.pi * 1000 * t)).astype(np.int16)) for gain in (20000.0, 2000.0))
    assert np.abs(loud - soft)[:, :40].max() < 0.2
    mel = 2595 * np.log10(1 + 1000 / 700)
    band = round(mel / (2595 * np.log10(1 + 4000 / 700)) * (fsdd.BANDS + 1)) - 1
    assert loud[:, 20].argmax() == band
    assert (loud[:, 52:] == np.float32(np.log(1e-4))).all()  # silence behind the recording's end


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.array([-5], np.int32)}, "each of 1 to"),
        ({"lengths": np.full(40, 2_000_000_000, np.int32)}, "each of 1 to"),
        ({"lengths": np.ones(40, np.int32)}, "40 are needed"),
        ({"digit": np.zeros(3, np.uint8)}, "disagree"),
        ({"digit": np.full(40, 17, np.uint8)}, "label 17"),
        ({"lo_xz": np.ones(64, np.uint8)}, "damaged"),
        ({"take": np.zeros(40, np.int64)}, "uint8"),
    ],
)
def test_damaged_packed_recordings_are_one_error(tmp_path: Path, change: dict, message: str) -> None:
    np.savez(tmp_path / "fsdd.npz", **packed(**change))
    with pytest.raises(FormatError, match=message):
        data.load("fsdd", tmp_path)


def test_recordings_of_another_kind_are_named(tmp_path: Path) -> None:
    write_waves(tmp_path / "recordings", rate=16000)
    with pytest.raises(FormatError, match=r"0_ann_0\.wav: 1 channels of 16 bits at 16000 Hz"):
        data.load("fsdd", tmp_path)
    (tmp_path / "recordings" / "0_ann_0.wav").write_bytes(b"RIFF")
    with pytest.raises(FormatError, match="not a readable WAV"):
        data.load("fsdd", tmp_path)
    with pytest.raises(UsageError, match="put its files there"):
        data.load("fsdd", tmp_path / "recordings")


def write_reviews(folder: Path, pack=None, **changes: str) -> None:
    texts = {"train": "a fine film\t1\na dull film\t0\na film\t1\n", "dev": "dull\t0\n", "test": "a masterpiece\t1\n"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**texts, **changes}.items():
        raw = text.encode()
        (folder / f"{name}.tsv{'.xz' if pack else ''}").write_bytes(pack(raw) if pack else raw)


@pytest.mark.parametrize("pack", PACKS)
def test_words_are_numbered_by_how_often_training_has_them(tmp_path: Path, pack) -> None:
    write_reviews(tmp_path / "sst2", pack)
    splits = data.load("sst2", tmp_path)
    train = splits.train.inputs
    assert train.shape == (3, sst2.LENGTH)
    assert train.dtype == torch.int64
    # a and film stand thrice each, then dull and fine once: ties by the alphabet
    assert train[:, :4].tolist() == [[2, 5, 3, 0], [2, 4, 3, 0], [2, 3, 0, 0]]
    assert splits.test.inputs[0, :3].tolist() == [2, sst2.UNKNOWN, sst2.PADDING]
    assert splits.train.targets.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("no label here\n", "line 1"), ("bad\tx\n", "line 1"), ("bad\t7\n", "label 7")],
)
def test_damaged_reviews_are_one_error(tmp_path: Path, text: str, message: str) -> None:
    write_reviews(tmp_path, dev=text)
    with pytest.raises(FormatError, match=message):
        data.load("sst2", tmp_path)


def test_reviews_are_fetched_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sst2, "REMOTE", type(sst2.REMOTE)(hosts=((tmp_path / "nowhere").as_uri() + "/",), hashes=sst2.REMOTE.hashes)
    )
    with pytest.raises(UsageError, match="ask for the download"):
        data.load("sst2", tmp_path)
    with pytest.raises(EnvironmentFailure, match=r"train\.tsv could not be downloaded"):
        data.load("sst2", tmp_path, download=True)


@needs_data
def test_the_real_sets_have_their_published_sizes() -> None:
    sound, text = data.load("fsdd"), data.load("sst2")
    assert [p.n_examples for p in (sound.train, sound.valid, sound.test)] == [2400, 300, 300]
    assert [p.n_examples for p in (text.train, text.valid, text.test)] == [6920, 872, 1821]
    assert abs(float(sound.train.inputs.mean())) < 0.01
    assert abs(float(sound.train.inputs.std()) - 1) < 0.01
    assert int(text.train.inputs.max()) == sst2.WORDS - 1


BUNDLED = {"digits", "cifar10_pretrained", "shapes"}  # scikit-learn brings it; the files of cifar10; it is drawn


@pytest.mark.parametrize("name", [n for n in data.NAMES if n not in BUNDLED])
def test_a_download_is_advised_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    family, _, member = name.partition(":")
    room = importlib.import_module(f"secateur.data.{family}")
    has_one = member in getattr(room, "REMOTES", ()) if member else hasattr(room, "REMOTE")
    with pytest.raises(UsageError, match="put its files there") as refused:
        data.load(name, tmp_path)
    assert (f"secateur.data.load('{name}', download=True)" in str(refused.value)) == has_one
    assert (f"help(secateur.data.{family}.load) says; this set has no download" in str(refused.value)) != has_one
    assert has_one or "SECATEUR_DATA" in room.load.__doc__  # what help() says


def write_graph(folder: Path, **changes: np.ndarray) -> None:
    """Five nodes of three words in a row, two labelled for training."""
    arrays = {
        "num_nodes": np.int64(5),
        "num_features": np.int64(3),
        "feat_indptr": np.array([0, 2, 3, 4, 5, 6], np.int32),
        "feat_indices": np.array([0, 1, 2, 0, 1, 2], np.int16),
        "feat_data": np.ones(6, np.float32),
        "labels": np.array([0, 1, 2, 3, -1], np.int8),
        "edges": np.array([[0, 1], [1, 2], [2, 3]], np.int32),
        "train_idx": np.array([0, 1], np.int32),
        "val_idx": np.array([2], np.int32),
        "test_idx": np.array([3], np.int32),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "cora.npz", **{**arrays, **changes})


def test_a_graph_is_one_batch_whose_other_nodes_are_ignored(tmp_path: Path) -> None:
    write_graph(tmp_path / "planetoid")
    splits = data.load("planetoid:cora", tmp_path)
    (x, adjacency), labels = splits.valid[0]
    assert labels.tolist() == [-100, -100, 2, -100, -100]
    assert x[0].tolist() == [0.5, 0.5, 0.0]  # rows of sum 1
    assert torch.equal(adjacency, adjacency.T)
    assert adjacency[0, 1] == pytest.approx((1 / 2) ** 0.5 * (1 / 3) ** 0.5)
    assert adjacency[4].tolist() == [0, 0, 0, 0, 1]  # a node by itself
    assert len(splits.train) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_nodes": np.int64(2_000_000)}, "at most"),
        ({"feat_indptr": np.array([0, 9, 3, 4, 5, 6], np.int32)}, "do not fit together"),
        ({"feat_indices": np.array([0, 1, 7, 0, 1, 2], np.int16)}, "feature index"),
        ({"edges": np.array([[0, -1]], np.int32)}, "edge index"),
        ({"test_idx": np.array([5], np.int32)}, "part index"),
        ({"test_idx": np.array([4], np.int32)}, "label -1"),
    ],
)
def test_a_damaged_graph_is_one_error(tmp_path: Path, change: dict, message: str) -> None:
    write_graph(tmp_path, **change)
    with pytest.raises(FormatError, match=message):
        data.load("planetoid:cora", tmp_path)


@pytest.mark.parametrize("pack", PACKS)
def test_a_text_is_windows_whose_targets_are_one_further(tmp_path: Path, pack) -> None:
    text = bytes(np.random.default_rng(0).integers(97, 123, 20_000, dtype=np.uint8))
    (tmp_path / f"tiny_shakespeare.txt{'.xz' if pack else ''}").write_bytes(pack(text) if pack else text)
    splits = data.load("text:tiny_shakespeare", tmp_path)
    assert splits.spec.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    x, y = splits.train.inputs, splits.train.targets
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert torch.equal(x[1:, 0], y[:-1, -1])
    assert bytes((x[0] + 97).tolist()) == text[:64]
    assert [p.n_examples for p in (splits.train, splits.valid, splits.test)] == [281, 15, 15]


def test_unusable_texts_and_members_are_named(tmp_path: Path) -> None:
    (tmp_path / "war_and_peace.txt").write_bytes(b"short")
    with pytest.raises(FormatError, match="5 characters"):
        data.load("text:war_and_peace", tmp_path)
    (tmp_path / "tiny_shakespeare.txt.xz").write_bytes(lzma.compress(b"some text" * 999)[:80])
    with pytest.raises(FormatError, match="damaged or truncated"):
        data.load("text:tiny_shakespeare", tmp_path)
    with pytest.raises(UsageError, match="planetoid:cora"):
        data.load("planetoid:pubmed", tmp_path)


def test_families_of_sets_are_no_code_of_others() -> None:
    assert not data.is_path("planetoid:cora")
    assert not data.is_path("text:anything")
    assert data.is_path("os:abort")
