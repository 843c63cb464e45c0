"""N-MNIST: an event camera before moving MNIST digits; recordings as frames of counted events."""

from __future__ import annotations

import lzma
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from secateur.data.arrays import read_arrays
from secateur.data.download import Remote
from secateur.data.mnist import fixed_split
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, tensor_data
from secateur.errors import FormatError

SIDE, STEPS = 34, 10
SPEC = Spec(
    name="nmnist",
    shape=(STEPS, 2, SIDE, SIDE),
    classes=tuple("0123456789"),
    mean=(0.0,),
    std=(1.0,),
    full_scale=1.0,
    note="events in a pixel, polarity and tenth of the recording; a sixth of the training part is for validation",
)
FILES = {"train": ("train.npz", "Train", "Train.zip"), "test": ("test.npz", "Test", "Test.zip")}
REMOTE = Remote(
    hosts=("https://data.mendeley.com/public-files/datasets/468j46mzdv/files/",),
    hashes={
        "Train.zip": "md5:20959b8e626244a1b502305a9e6e2031",
        "Test.zip": "md5:69ca8762b2fe404d9b9bad1103e97832",
    },
    places={
        "Train.zip": "39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        "Test.zip": "05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
    },
)
MOST = 6000  # recordings of a part: 0.5 GB as float32, where the whole set would take 6
_MAX_RECORDINGS, _MAX_EVENTS = 70_000, 100_000  # of a part, of a recording (the longest has some 9,000)
_OVERFLOW, _WRAP = 240, 1 << 13  # a published event of this y says that the clock, from here on, is 8,192 us behind
_LIMIT = 1 << 28
_VALID_SHARE = 6

T = TypeVar("T")
Events = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # x, y, polarity, time in us


def load(data_dir: str | Path | None = None, *, batch_size: int = 32, download: bool = False) -> Splits:
    """Recordings [10 steps, 2 polarities, 34, 34] as float32 counts of events, labels 0 to 9.

    A step is a tenth of the recording's own length (about 0.3 s). A sixth of the training recordings, by a fixed
    permutation, are for validation. Of a part with more than `MOST` recordings every second (third, ...) one is read.
    Looked for in `data_dir` (or SECATEUR_DATA) and its `nmnist/`: the published folders `Train/` and `Test/`
    (`Train/3/00017.bin`: digit, number), their zip archives, or `train.npz` and `test.npz`, which hold recordings
    packed; else, with `download`, the archives are fetched with checked hashes (1.2 GB).

    Source: Orchard et al., Frontiers in Neuroscience 9, 2015, arXiv:1507.07629; CC BY-SA 4.0.
    """
    folder = open_set(SPEC.name, data_dir, lambda f: _find(f, "train") is not None, REMOTE, download)
    parts = {}
    for part in FILES:
        place = _find(folder, part)
        if place is None:
            raise FormatError(f"nmnist: {folder} lacks its {part} part; put {' or '.join(FILES[part])} there")
        found = [(frames(events, place.name), digit) for events, digit in _recordings(place)]
        if not found:
            raise FormatError(f"{place}: no recording is in it")
        parts[part] = (np.stack([x for x, _ in found]), np.array([y for _, y in found], np.int64))
    (x, y), (x_test, y_test) = parts["train"], parts["test"]
    train, valid = fixed_split(len(x), max(len(x) // _VALID_SHARE, 1), SPEC.name)
    return Splits(
        tensor_data(SPEC, x[train], y[train], batch_size=batch_size, what="train"),
        tensor_data(SPEC, x[valid], y[valid], batch_size=100, what="validation"),
        tensor_data(SPEC, x_test, y_test, batch_size=100, what="test"),
        SPEC,
    )


def frames(events: Events, subject: str) -> NDArray[np.float32]:
    """Counts [STEPS, 2, SIDE, SIDE] of one recording's events.

    Raises FormatError: no event, too many, a place outside of the sensor, times that run backwards.
    """
    x, y, polarity, time = events
    if not 0 < len(x) <= _MAX_EVENTS:
        raise FormatError(f"{subject}: a recording of {len(x)} events; 1 to {_MAX_EVENTS} are possible")
    if max(int(x.max()), int(y.max())) >= SIDE or (np.diff(time) < 0).any():
        raise FormatError(f"{subject}: an event outside of {SIDE} x {SIDE} pixels, or before the one that precedes it")
    step = (time - time[0]) * STEPS // (int(time[-1] - time[0]) + 1)
    places = np.ravel_multi_index((step, polarity, y, x), SPEC.shape)
    return np.bincount(places, minlength=math.prod(SPEC.shape)).reshape(SPEC.shape).astype(np.float32)


def _find(folder: Path, part: str) -> Path | None:
    return next((folder / name for name in FILES[part] if (folder / name).exists()), None)


def _recordings(place: Path) -> Iterator[tuple[Events, int]]:
    """Events and digit of every recording of a part, in the order of the files' names or of the archive."""
    if place.suffix == ".npz":
        yield from _read_packed(place)
    elif place.suffix == ".zip":
        yield from _read_zip(place)
    else:
        for path in _some(sorted(place.glob("[0-9]/*.bin"))):
            yield _events(path.read_bytes()[: 5 * (_MAX_EVENTS + 1)], str(path)), int(path.parent.name)


def _some(found: list[T]) -> list[T]:
    """All, or evenly some `MOST` of them: names are in the order of the digits."""
    return found[:: -(-len(found) // MOST) or 1]


def _read_zip(place: Path) -> Iterator[tuple[Events, int]]:
    try:
        with zipfile.ZipFile(place) as archive:
            for name in _some(sorted(n for n in archive.namelist() if n.endswith(".bin"))):
                digit = Path(name).parent.name
                with archive.open(name) as stream:
                    raw = stream.read(5 * (_MAX_EVENTS + 1))
                if len(digit) != 1 or not digit.isdigit():
                    raise FormatError(f"{place.name}: {name!r} lies in no folder of a digit, as Train/3/00017.bin does")
                yield _events(raw, f"{place.name}: {name}"), int(digit)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise FormatError(f"{place.name}: not a readable zip archive ({error})") from error


def _events(raw: bytes, subject: str) -> Events:
    """The published form: 5 bytes an event, big-endian: x (8 bits), y (8), polarity (1), time in microseconds (23)."""
    if len(raw) % 5:
        raise FormatError(f"{subject}: {len(raw)} bytes; events of 5 bytes each are needed")
    table = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64)
    wraps = table[:, 1] == _OVERFLOW
    time = (table[:, 2] & 127) << 16 | table[:, 3] << 8 | table[:, 4]
    time, table = (time + _WRAP * np.cumsum(wraps))[~wraps], table[~wraps]
    return table[:, 0], table[:, 1], table[:, 2] >> 7, time


def _read_packed(path: Path) -> Iterator[tuple[Events, int]]:
    """Coordinates, packed polarities and time steps of all events, each under xz."""
    names = ("x_xz", "y_xz", "p_xz", "dt_lo_xz", "dt_hi_xz")
    wanted: dict[str, tuple[str, tuple[int | None, ...]]] = dict.fromkeys(names, ("uint8", (None,)))
    z = read_arrays(path, {**wanted, "lengths": ("int32", (None,)), "labels": ("uint8", (None,))}, limit=_LIMIT)
    lengths, n = z["lengths"], len(z["lengths"])
    if not 0 < n <= _MAX_RECORDINGS or (lengths <= 0).any() or (lengths > _MAX_EVENTS).any() or len(z["labels"]) != n:
        raise FormatError(
            f"{path.name}: {n} recordings, {len(z['labels'])} labels; as many of each, at most {_MAX_RECORDINGS}, "
            f"and 1 to {_MAX_EVENTS} events in each recording are needed"
        )
    total = int(lengths.sum(dtype=np.int64))
    if total > _LIMIT:
        raise FormatError(f"{path.name}: {total} events; at most {_LIMIT} are possible")
    x, y, low, high = (_unxz(path, z[k].tobytes(), total).astype(np.int64) for k in ("x_xz", "y_xz", *names[3:]))
    polarity = np.unpackbits(_unxz(path, z["p_xz"].tobytes(), -(-total // 8)))[:total].astype(np.int64)
    steps = low | high << 8
    ends = np.cumsum(lengths, dtype=np.int64)
    for start, end, label in zip(ends - lengths, ends, z["labels"], strict=True):
        part = slice(int(start), int(end))
        yield (x[part], y[part], polarity[part], np.cumsum(steps[part])), int(label)


def _unxz(path: Path, packed: bytes, size: int) -> NDArray[np.uint8]:
    try:
        raw = lzma.LZMADecompressor().decompress(packed, size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"{path.name}: the compressed events are damaged ({error})") from error
    if len(raw) != size:
        raise FormatError(f"{path.name}: {len(raw)} bytes of events; {size} are needed")
    return np.frombuffer(raw, np.uint8)
