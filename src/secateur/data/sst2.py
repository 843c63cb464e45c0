"""SST-2: movie-review sentences, positive or negative, as word numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.compressed import find, read
from secateur.data.download import Remote
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, check_labels
from secateur.data.tensors import TensorData
from secateur.errors import FormatError

WORDS, LENGTH = 4000, 32
PADDING, UNKNOWN = 0, 1
SPEC = Spec(
    name="sst2",
    shape=(LENGTH,),
    classes=("negative", "positive"),
    mean=(0.0,),
    std=(1.0,),
    full_scale=1.0,
    note=f"word numbers below {WORDS}, 0 = padding, 1 = unknown; 6,920 / 872 / 1,821 sentences, the set's own parts",
)
FILES = ("train.tsv", "dev.tsv", "test.tsv")
REMOTE = Remote(
    hosts=(
        "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/"
        "457ffd83de90a9d6d472d8ffc31bbffe40a8b236/data/SST2/",
    ),
    hashes={
        FILES[0]: "sha256:ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
        FILES[1]: "sha256:eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
        FILES[2]: "sha256:831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
    },
)
_LIMIT = 1 << 24  # bytes of one file; the training part has 0.8 MB

Sentences = list[tuple[list[str], int]]


def load(data_dir: str | Path | None = None, *, batch_size: int = 64, download: bool = False) -> Splits:
    """6,920 training, 872 validation and 1,821 test sentences: int64 word numbers [32], labels 0 and 1.

    The vocabulary are the training part's most frequent words (ties by the alphabet), numbered from 2 on; sentences
    are cut or padded with 0 at their end. Looked for in `data_dir` (or SECATEUR_DATA) and its `sst2/`: `train.tsv`,
    `dev.tsv` and `test.tsv` (sentence, tab, label), plain, under gzip or xz; else, with `download`,
    fetched with checked hashes.

    Source: Socher et al., EMNLP 2013, with two classes.
    """
    parts = sentences(data_dir, download=download)
    counts = Counter(word for words, _ in parts[0] for word in words)
    ranked = sorted(counts, key=lambda w: (-counts[w], w))[: WORDS - 2]
    numbers = {word: i + 2 for i, word in enumerate(ranked)}
    train, valid, test = (_data(p, numbers, n) for p, n in zip(parts, (batch_size, 872, 1821), strict=True))
    return Splits(train, valid, test, SPEC)


def sentences(data_dir: str | Path | None = None, *, download: bool = False) -> list[Sentences]:
    """Training, validation and test part as (words, label); where they are looked for says `load`."""
    folder = open_set(SPEC.name, data_dir, lambda f: find(f, FILES[0]) is not None, REMOTE, download)
    return [_read(folder, name) for name in FILES]


def _data(part: Sentences, numbers: dict[str, int], batch_size: int) -> TensorData:
    ids: NDArray[np.int64] = np.full((len(part), LENGTH), PADDING, np.int64)
    for row, (words, _) in zip(ids, part, strict=True):
        known = [numbers.get(w, UNKNOWN) for w in words[:LENGTH]]
        row[: len(known)] = known
    return TensorData(torch.from_numpy(ids), torch.tensor([label for _, label in part]), batch_size)


def _read(folder: Path, name: str) -> Sentences:
    """Sentences as lists of words, each with its label."""
    path = find(folder, name)
    if path is None:
        raise FormatError(f"sst2: {folder} lacks {name} (plain, .gz or .xz); copy all three files there")
    try:
        text = read(path, _LIMIT).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name}: not text in UTF-8 ({error})") from error
    found: Sentences = []
    for number, line in enumerate(text.splitlines(), 1):
        sentence, tab, label = line.rpartition("\t")
        if not tab or not label.strip().isdigit():
            raise FormatError(f"{path.name}: line {number} is no sentence, tab and label")
        found.append((sentence.split(), int(label)))
    if not found:
        raise FormatError(f"{path.name}: the data set is empty; at least one sentence is needed")
    check_labels(path.name, np.array([label for _, label in found]), len(SPEC.classes))
    return found
