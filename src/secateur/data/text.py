"""Plain text, character by character: the next one is to be told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from secateur.data.compressed import find, read
from secateur.data.download import Remote
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits
from secateur.data.tensors import TensorData
from secateur.errors import FormatError

SPAN = 64  # characters of one example
SHARES = {"tiny_shakespeare": (90, 5), "war_and_peace": (80, 10)}  # percent for training, for validation; customary
REMOTES = {
    "tiny_shakespeare": Remote(
        hosts=("https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/",),
        hashes={"tiny_shakespeare.txt": "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        places={"tiny_shakespeare.txt": "data/tinyshakespeare/input.txt"},
    )
}
_LIMIT = 1 << 26


def load(which: str, data_dir: str | Path | None = None, *, batch_size: int = 64, download: bool = False) -> Splits:
    """Windows of 64 characters as int64 numbers [64], targets the characters one further [64]; parts in order.

    The alphabet are the bytes that occur, ascending; `spec.classes` names them. Scores [batch, letters, 64] fit
    cross-entropy as they are. Looked for in `data_dir` (or SECATEUR_DATA) and its `text/`: `tiny_shakespeare.txt`,
    `war_and_peace.txt`, plain, under gzip or xz; else `tiny_shakespeare` is, with `download`, fetched with a checked
    hash. There is no download of the other.

    Source: Karpathy et al. 2015, arXiv:1506.02078.
    """
    name, remote = f"{which}.txt", REMOTES.get(which)
    path = find(open_set(f"text:{which}", data_dir, lambda f: find(f, name) is not None, remote, download), name)
    assert path is not None  # open_set has looked
    alphabet, ids = np.unique(np.frombuffer(read(path, _LIMIT), np.uint8), return_inverse=True)
    if len(ids) < 100 * (SPAN + 1):
        raise FormatError(f"{path.name}: {len(ids)} characters; at least {100 * (SPAN + 1)} are needed for three parts")
    first, second = SHARES[which]
    ends = [0, len(ids) * first // 100, len(ids) * (first + second) // 100, len(ids)]
    numbers = torch.from_numpy(ids.astype(np.int64))
    train, valid, test = (_windows(numbers[a:b], batch_size if a == 0 else 256) for a, b in pairwise(ends))
    letters = tuple(repr(chr(b))[1:-1] for b in alphabet)
    return Splits(train, valid, test, Spec(which, (SPAN,), letters, (0.0,), (1.0,), 1.0))


def _windows(numbers: torch.Tensor, batch_size: int) -> TensorData:
    n = (len(numbers) - 1) // SPAN
    x, y = numbers[: n * SPAN].reshape(n, SPAN), numbers[1 : n * SPAN + 1].reshape(n, SPAN)
    return TensorData(x, y, batch_size)
