"""CIFAR-10: 32x32 RGB photographs, from the binary batches, their archive, or losslessly packed parts."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data.download import Remote
from secateur.data.folder import data_folder
from secateur.data.image_code import read_images
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, check_labels, tensor_data
from secateur.data.unpacked import keep_unpacked
from secateur.errors import FormatError
from secateur.shell import saving

SPEC = Spec(
    name="cifar10",
    shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    # ImageNet's numbers, which the published pretrained ResNets expect; CIFAR's own differ by a few percent.
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    note="rows 0-39,999 train, 40,000-41,999 validation, test = the other 8,000 and the clean test images",
)
ARCHIVE = "cifar-10-binary.tar.gz"
REMOTE = Remote(
    hosts=("https://www.cs.toronto.edu/~kriz/",),
    hashes={ARCHIVE: "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
)
_BIN_FOLDER, _PICKLE_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
_PART, _PIXELS = 10_000, 32 * 32 * 3
_RECORD = 1 + _PIXELS  # a label byte, then 1,024 bytes each of red, green and blue
N_TRAIN, N_VALID = 40_000, 2_000

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images [N, 32, 32, 3], labels [N]


def load(data_dir: str | Path | None = None, *, batch_size: int = 128, download: bool = False) -> Splits:
    """40,000 training, 2,000 validation, and as test the other 8,000 training images and the clean test images.

    For nets trained here from rows 0-39,999. The clean test images are 10,000 from the binary batches and 1,000 from
    the packed parts. A pretrained net has seen all 50,000 training images: use `cifar10_pretrained` for it.

    Looked for in `data_dir` (or SECATEUR_DATA), its `cifar10/` and `cifar-10-batches-bin/`: `data_batch_1.bin` and so
    on, the archive `cifar-10-binary.tar.gz`, or `train_1.npz` ... `test_first1000.npz`. Python's pickled batches are
    refused: unpickling runs code.
    """
    train, test = read_parts(data_dir, download)
    x, y = train
    seen = N_TRAIN + N_VALID
    return Splits(
        _data(x[:N_TRAIN], y[:N_TRAIN], batch_size, "train"),
        _data(x[N_TRAIN:seen], y[N_TRAIN:seen], 500, "validation"),
        _data(np.concatenate([x[seen:], test[0]]), np.concatenate([y[seen:], test[1]]), 500, "test"),
        spec=SPEC,
    )


def read_parts(data_dir: str | Path | None, download: bool) -> tuple[Part, Part]:
    """All 50,000 training images in the original order, and the test images there are."""
    folder = _find(data_dir, download)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    if (folder / "data_batch_1.bin").is_file():
        parts = [_read_batch(folder / f"{name}.bin") for name in names]
    elif (folder / "train_1.npz").is_file():
        packed = [folder / f"train_{i}.npz" for i in range(1, 6)] + [folder / "test_first1000.npz"]
        parts = [_read_packed(path) for path in packed]
    else:
        parts = _read_archive(folder / ARCHIVE, names)
    for name, (images, labels) in zip(names, parts, strict=True):
        check_labels(f"cifar10 {name}", labels, len(SPEC.classes))
        if name != "test_batch" and len(images) != _PART:
            raise FormatError(f"cifar10 {name}: {len(images)} images; {_PART} are needed")
    train = (np.concatenate([p[0] for p in parts[:5]]), np.concatenate([p[1] for p in parts[:5]]))
    return train, parts[5]


def read_test(data_dir: str | Path | None, download: bool) -> Part:
    """The clean test images alone: without the half minute that unpacking the training images takes."""
    folder = _find(data_dir, download)
    if (folder / "data_batch_1.bin").is_file():
        return _read_batch(folder / "test_batch.bin")
    packed = folder / "test_first1000.npz"
    return _read_packed(packed) if packed.is_file() else _read_archive(folder / ARCHIVE, ["test_batch"])[0]


def _data(images: NDArray[np.uint8], labels: NDArray[np.uint8], batch_size: int, what: str):  # type: ignore[no-untyped-def]
    return tensor_data(SPEC, images, labels, batch_size=batch_size, what=what, channels_last=True)


def _find(data_dir: str | Path | None, download: bool) -> Path:
    def is_there(folder: Path) -> bool:
        return any((folder / name).is_file() for name in ("data_batch_1.bin", "train_1.npz", ARCHIVE))

    base = data_folder(data_dir)
    for place in [] if base is None else [base / "cifar10", base]:
        if (place / _BIN_FOLDER / "data_batch_1.bin").is_file():
            return place / _BIN_FOLDER
        pickled = [place / "data_batch_1", place / _PICKLE_FOLDER / "data_batch_1", place / "cifar-10-python.tar.gz"]
        if not is_there(place) and any(p.is_file() for p in pickled):
            raise FormatError(
                f"cifar10: {place} holds the Python version, pickled batches; reading a pickle can run any code, so it "
                f"is refused; put the binary version ({ARCHIVE} or its .bin files) there instead"
            )
    return open_set("cifar10", data_dir, is_there, REMOTE, download)


def _read_batch(path: Path) -> Part:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_PART * _RECORD + 1)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    return _parse_batch(path.name, raw)


def _parse_batch(name: str, raw: bytes) -> Part:
    if len(raw) != _PART * _RECORD:
        came = f"{len(raw)}" if len(raw) < _PART * _RECORD else f"more than {_PART * _RECORD}"
        raise FormatError(f"{name}: {came} bytes; a CIFAR-10 batch has {_PART} records of {_RECORD} bytes", len(raw))
    table = np.frombuffer(raw, np.uint8).reshape(_PART, _RECORD)
    images = table[:, 1:].reshape(_PART, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, table[:, 0].copy()


def _read_archive(path: Path, names: list[str]) -> list[Part]:
    """The six batches of the published archive, read in place: nothing is extracted, other members are skipped."""
    wanted = {f"{_BIN_FOLDER}/{name}.bin": name for name in names}
    found: dict[str, Part] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() and member.name in wanted else None
                if stream is not None:
                    found[wanted[member.name]] = _parse_batch(member.name, stream.read(_PART * _RECORD + 1))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise FormatError(f"{path.name}: the archive is damaged or truncated ({error})") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise FormatError(f"{path.name}: the archive lacks {', '.join(missing)}.bin")
    return [found[name] for name in names]


def _read_packed(path: Path) -> Part:
    if not path.is_file():
        raise FormatError(f"cifar10: {path} is missing; copy all six packed parts there")
    unpack: Callable[[], Part] = lambda: read_images(path, (32, 32, 3), _PART)  # noqa: E731
    return keep_unpacked(path, saving.cache_folder() / "unpacked", (32, 32, 3), unpack)
