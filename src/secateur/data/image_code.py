"""Decoder of a lossless code for many small images: context-modelled prediction errors, coded by interleaved rANS.

The format (one .npz file; integers only, so every machine decodes the same bytes):

- Channels come one after the other in `order`, pixels row by row; all images advance together, one pixel a step.
- A pixel is predicted by a linear form (12 fractional bits, rounded, cut to 0..255) of ten coded neighbours in its
  own channel and five in every channel coded before (`pw`). A second form (`mw`) of local differences and of earlier
  absolute errors measures how busy the place is; 31 thresholds (`th`) turn it into one of 32 contexts. Both forms
  have seven sets of coefficients, for the interior and six kinds of border.
- The error modulo 256 follows the context's frequency table (`freq`, sum 2^14). One 32-bit rANS state per image
  (`state`) takes 16-bit `words` from one common stream, in image order, whenever it falls below 2^16; after the last
  pixel every state must be 2^16 and the stream must be used up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.data.arrays import read_arrays
from secateur.errors import FormatError

Ints = NDArray[np.int32]

# (row, column) offsets of coded neighbours: own channel, earlier channels, and errors in earlier channels.
_OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, 2), (-2, 1), (-2, -1), (-1, -2))
_EARLIER = ((0, 0), (0, -1), (-1, 0), (-1, -1), (-1, 1))
_EARLIER_ERRORS = ((0, 0), (0, -1), (-1, 0))
_N_DIFFERENCES = 5
_N_OWN_ERRORS = 6
_ZONES = 7
_CONTEXTS = 32
_SCALE_BITS = 14
_LOW = 1 << 16
_TOP, _SIDE, _FAR = 2, 2, 2  # zero border above, left and right, so that every offset stays inside


@dataclass(frozen=True)
class _ChannelModel:
    """Coefficients and tables of one channel, as turn `turn` of the coding order uses them."""

    predict: Ints  # [zones, terms + 1], the last column is the constant
    busy: Ints  # [zones, terms + 1]
    thresholds: Ints  # [contexts - 1], ascending
    frequency: NDArray[np.uint64]  # [contexts * 256]
    start: NDArray[np.uint64]  # [contexts * 256] cumulated frequency below the symbol
    symbol: NDArray[np.uint8]  # [contexts * 2^14] slot -> symbol


def read_images(path: Path, size: tuple[int, int, int], max_images: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images uint8 [N, *size] (rows, columns, channels) and labels uint8 [N]. FormatError: damaged or other layout."""
    rows, columns, channels = size
    n_predict = sum(len(_OWN) + len(_EARLIER) * q + 1 for q in range(channels)) * _ZONES
    n_busy = sum(_N_DIFFERENCES + _N_OWN_ERRORS + len(_EARLIER_ERRORS) * q + 1 for q in range(channels)) * _ZONES
    z = read_arrays(
        path,
        {
            "shape": ("int32", (4,)),
            "order": ("uint8", (channels,)),
            "labels": ("uint8", (None,)),
            "pw": ("int32", (n_predict,)),
            "mw": ("int32", (n_busy,)),
            "th": ("int32", (channels, _CONTEXTS - 1)),
            "freq": ("uint16", (channels, _CONTEXTS, 256)),
            "state": ("uint32", (None,)),
            "words": ("uint16", (None,)),
        },
        # Tables, and two bytes a value: far above what a useful code needs, and it bounds the memory.
        limit=(1 << 16) * channels + 2 * max_images * rows * columns * channels,
    )
    n = len(z["state"])
    if not 0 < n <= max_images:
        raise FormatError(f"{path.name}: {n} images; 1 to {max_images} are needed")
    if z["shape"].tolist() != [n, *size] or len(z["labels"]) != n:
        raise FormatError(
            f"{path.name}: {n} image states, shape {z['shape'].tolist()}, {len(z['labels'])} labels disagree"
        )
    if sorted(z["order"].tolist()) != list(range(channels)):
        raise FormatError(f"{path.name}: channel order {z['order'].tolist()} is not a permutation")
    if (z["freq"].sum(2, dtype=np.int64) != 1 << _SCALE_BITS).any() or (np.diff(z["th"], axis=1) < 0).any():
        raise FormatError(f"{path.name}: a frequency table or a list of thresholds is damaged")
    if any((z[k] > 1 << 26).any() or (z[k] < -(1 << 26)).any() for k in ("pw", "mw")):
        raise FormatError(f"{path.name}: a coefficient is far outside of what an encoder writes; the file is damaged")
    models = list(_models(z["pw"], z["mw"], z["th"], z["freq"]))
    return _decode(path.name, size, z["order"].tolist(), models, z["state"], z["words"]), z["labels"].copy()


def _models(predict: Ints, busy: Ints, thresholds: Ints, frequency: NDArray[np.uint16]) -> Iterator[_ChannelModel]:
    a = b = 0
    for turn, table in enumerate(frequency.astype(np.int64)):
        n_predict = len(_OWN) + len(_EARLIER) * turn + 1
        n_busy = _N_DIFFERENCES + _N_OWN_ERRORS + len(_EARLIER_ERRORS) * turn + 1
        yield _ChannelModel(
            predict=predict[a : a + _ZONES * n_predict].reshape(_ZONES, n_predict),
            busy=busy[b : b + _ZONES * n_busy].reshape(_ZONES, n_busy),
            thresholds=thresholds[turn],
            frequency=table.ravel().astype(np.uint64),
            start=(table.cumsum(1) - table).ravel().astype(np.uint64),
            symbol=np.concatenate([np.repeat(np.arange(256, dtype=np.uint8), row) for row in table]),
        )
        a, b = a + _ZONES * n_predict, b + _ZONES * n_busy


def _zone(row: int, column: int, columns: int) -> int:
    """Which of the seven sets of coefficients; later rules win over earlier ones, as the encoder had it."""
    zone = 0
    if row == 0:
        zone = 1
    if column == 0:
        zone = 3 if row == 0 else 2
    if row > 0:
        zone = {columns - 1: 4, 1: 5, columns - 2: 6}.get(column, zone)
    return zone


def _linear(terms: Sequence[Ints], coefficients: Ints, constant: int) -> Ints:
    total: Ints = terms[0] * coefficients[0]
    total += np.int32(constant)
    product = np.empty_like(total)
    for term, c in zip(terms[1:], coefficients[1:], strict=True):
        np.multiply(term, c, out=product)
        total += product
    return total


class _Words:
    """The common stream of 16-bit words."""

    def __init__(self, name: str, words: NDArray[np.uint16]) -> None:
        self.name, self.words, self.used = name, words.astype(np.uint64), 0

    def take(self, n: int) -> NDArray[np.uint64]:
        if self.used + n > len(self.words):
            raise FormatError(f"{self.name}: the image data ends too early", 2 * self.used)
        self.used += n
        return self.words[self.used - n : self.used]


def _decode(
    name: str,
    size: tuple[int, int, int],
    order: list[int],
    models: list[_ChannelModel],
    state: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> NDArray[np.uint8]:
    rows, columns, channels = size
    n = len(state)
    # Images on the last axis: a step is a handful of operations on contiguous vectors of all images.
    value = np.zeros((channels, rows + _TOP, columns + _SIDE + _FAR, n), np.int32)
    error = np.zeros_like(value)
    stream, live = _Words(name, words), state.astype(np.uint64)
    for turn, (channel, model) in enumerate(zip(order, models, strict=True)):
        earlier = order[:turn]
        for row in range(rows):
            for column in range(columns):
                y, x = row + _TOP, column + _SIDE
                zone = _zone(row, column, columns)
                terms = [value[channel, y + i, x + j] for i, j in _OWN]
                west, north, nw, ne, ww, nn = terms[:6]
                terms += [value[c, y + i, x + j] for c in earlier for i, j in _EARLIER]
                k = model.predict[zone]
                guess = _linear(terms, k[:-1], int(k[-1]) + (1 << 11))
                guess >>= 12
                np.clip(guess, 0, 255, out=guess)
                rough = [abs(west - nw), abs(north - nw), abs(north - ne), abs(west - ww), abs(north - nn)]
                rough += [error[channel, y + i, x + j] for i, j in _OWN[:_N_OWN_ERRORS]]
                rough += [error[c, y + i, x + j] for c in earlier for i, j in _EARLIER_ERRORS]
                k = model.busy[zone]
                context = model.thresholds.searchsorted(_linear(rough, k[:-1], int(k[-1])), side="right")
                symbol, live = _advance(model, context, live, stream)
                found = (guess + symbol) & 255
                value[channel, y, x] = found
                error[channel, y, x] = abs(found - guess)
    if stream.used != len(words) or (live != _LOW).any():
        raise FormatError(f"{name}: the image data does not end where the encoder began; the file is damaged")
    inner = value[:, _TOP:, _SIDE : _SIDE + columns]
    return np.ascontiguousarray(inner.transpose(3, 1, 2, 0).astype(np.uint8))


def _advance(
    model: _ChannelModel, context: NDArray[np.intp], state: NDArray[np.uint64], stream: _Words
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """One rANS step for every image: the symbol, and the state renormalised from the common stream."""
    slot = state & np.uint64((1 << _SCALE_BITS) - 1)
    symbol = model.symbol[(context << _SCALE_BITS) + slot.astype(np.intp)]
    at = (context << 8) + symbol
    state = model.frequency[at] * (state >> np.uint64(_SCALE_BITS)) + slot - model.start[at]
    low = np.flatnonzero(state < _LOW)
    state[low] = (state[low] << np.uint64(16)) | stream.take(len(low))
    return symbol, state
