"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers at 8 kHz, as pictures of their spectrum."""

from __future__ import annotations

import lzma
import re
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data.arrays import read_arrays
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, tensor_data
from secateur.errors import FormatError

BANDS, FRAMES = 32, 64
SPEC = Spec(
    name="fsdd",
    shape=(1, BANDS, FRAMES),
    classes=tuple("0123456789"),
    mean=(-7.33,),
    std=(2.62,),
    full_scale=1.0,
    note="log-mel energies; takes 10-49 train (2,400), 5-9 validation (300), 0-4 test (300): the set's own test part",
)
PACKED, FOLDER = "fsdd.npz", "recordings"
_RATE, _WINDOW, _HOP = 8000, 256, 80  # 32 ms, every 10 ms: 64 frames hold 0.66 s, the median recording has 0.42 s
_MAX_SAMPLES = 10 * _RATE
_MAX_RECORDINGS = 20_000
_FLOOR = 1e-4  # below it is silence: with recordings scaled to an RMS of 0.1 this is 60 dB under a loud band
_NAME = re.compile(r"(\d)_([a-z]+)_(\d{1,3})\.wav")

Recording = tuple[NDArray[np.int16], int, int]  # samples, digit, take


def load(data_dir: str | Path | None = None, *, batch_size: int = 64, download: bool = False) -> Splits:
    """2,400 training, 300 validation and 300 test recordings: log-mel energies [1, 32 bands, 64 frames], float32.

    Each recording is scaled to the same loudness, cut or padded with silence at its end. All speakers are in every
    part. Looked for in the folder `fsdd` of `data_dir` (or SECATEUR_DATA), or in `data_dir` itself: the folder
    `recordings` of WAV files as published (`3_theo_17.wav`: digit, speaker, take), or all of them packed in `fsdd.npz`.
    There is no download: the publisher offers a repository, to be cloned into a folder named `fsdd`.

    Source: Jakobovski et al., Free Spoken Digit Dataset, CC BY-SA 4.0. Mel scale: O'Shaughnessy 1987.
    """
    del download
    folder = open_set(SPEC.name, data_dir, lambda f: (f / PACKED).is_file() or (f / FOLDER).is_dir())
    found = _read_packed(folder / PACKED) if (folder / PACKED).is_file() else _read_waves(folder / FOLDER)
    parts: dict[str, list[tuple[NDArray[np.float32], int]]] = {"train": [], "validation": [], "test": []}
    for samples, digit, take in found:
        part = "test" if take < 5 else "validation" if take < 10 else "train"
        parts[part].append((log_mel(samples), digit))
    train, valid, test = (
        tensor_data(
            SPEC,
            np.stack([x for x, _ in rows]) if rows else np.empty((0, BANDS, FRAMES), np.float32),
            np.array([y for _, y in rows], np.int64),
            batch_size=batch_size if what == "train" else 300,
            what=what,
        )
        for what, rows in parts.items()
    )
    return Splits(train, valid, test, SPEC)


def log_mel(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Natural logarithm of the mel energies [32 bands, 64 frames] of one recording at 8 kHz."""
    sound = samples.astype(np.float64)
    sound = 0.1 * sound / max(float(np.sqrt((sound**2).mean())), 1e-9)
    n = (FRAMES - 1) * _HOP + _WINDOW
    sound = np.pad(sound[:n], (0, max(0, n - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ _filters().T
    return np.log(np.maximum(energy.T, _FLOOR)).astype(np.float32)


@cache
def _filters() -> NDArray[np.float64]:
    """Triangles [bands, bins], equally wide on the mel scale, from 0 Hz to half the rate."""
    mel = np.linspace(0, 2595 * np.log10(1 + _RATE / 2 / 700), BANDS + 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    bins = np.linspace(0, _RATE / 2, _WINDOW // 2 + 1)
    rise = (bins - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    fall = (hz[2:, None] - bins) / (hz[2:] - hz[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) / (_WINDOW / 4)


def _read_packed(path: Path) -> Iterator[Recording]:
    """Zigzag-coded sample differences, low and high bytes each under xz."""
    wanted: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "lengths": ("int32", (None,)),
        "digit": ("uint8", (None,)),
        "take": ("uint8", (None,)),
        "lo_xz": ("uint8", (None,)),
        "hi_xz": ("uint8", (None,)),
    }
    z = read_arrays(path, wanted, limit=1 << 26)
    lengths, n = z["lengths"], len(z["lengths"])
    if not 0 < n <= _MAX_RECORDINGS or (lengths <= 0).any() or (lengths > _MAX_SAMPLES).any():
        raise FormatError(f"{path.name}: {n} recordings; 1 to {_MAX_RECORDINGS}, each of 1 to {_MAX_SAMPLES} samples")
    if len(z["digit"]) != n or len(z["take"]) != n:
        raise FormatError(f"{path.name}: {n} recordings, {len(z['digit'])} digits, {len(z['take'])} takes disagree")
    total = int(lengths.sum(dtype=np.int64))
    low = np.frombuffer(_unxz(path, z["lo_xz"].tobytes(), total), np.uint8)
    high = np.frombuffer(_unxz(path, z["hi_xz"].tobytes(), 2 * total), "<u2")
    code = low.astype(np.int32) | (high.astype(np.int32) << 8)
    step = (code >> 1) ^ -(code & 1)
    ends = np.cumsum(lengths)
    for i, part in enumerate(np.split(step, ends[:-1])):  # the first difference of a recording is its first sample
        yield np.cumsum(part).astype(np.int16), int(z["digit"][i]), int(z["take"][i])


def _unxz(path: Path, packed: bytes, size: int) -> bytes:
    try:
        stream = lzma.LZMADecompressor()
        raw = stream.decompress(packed, size + 1)
    except lzma.LZMAError as error:
        raise FormatError(f"{path.name}: the compressed samples are damaged ({error})") from error
    if len(raw) != size:
        raise FormatError(f"{path.name}: {len(raw)} bytes of samples; {size} are needed")
    return raw


def _read_waves(folder: Path) -> Iterator[Recording]:
    """The published files, in the order of their names."""
    found = [(m, p) for p in sorted(folder.iterdir()) if (m := _NAME.fullmatch(p.name))]
    if not found:
        raise FormatError(f"{folder}: no recording such as 3_theo_17.wav (digit, speaker, take) is in it")
    for match, path in found:
        try:
            with wave.open(str(path), "rb") as stream:
                kind = (stream.getnchannels(), stream.getsampwidth(), stream.getframerate())
                raw = stream.readframes(_MAX_SAMPLES)
        except (wave.Error, EOFError) as error:
            raise FormatError(f"{path.name}: not a readable WAV file ({error})") from error
        if kind != (1, 2, _RATE) or not raw or len(raw) % 2:
            raise FormatError(
                f"{path.name}: {kind[0]} channels of {8 * kind[1]} bits at {kind[2]} Hz, {len(raw)} bytes; "
                f"one channel of 16 bits at {_RATE} Hz is needed"
            )
        yield np.frombuffer(raw, "<i2"), int(match[1]), int(match[3])
