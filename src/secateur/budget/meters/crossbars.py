"""Crossbar arrays."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from secateur.contracts import Meter
from secateur.types import Inventory, Packing, Site, Weight

ROWS, COLS = 64, 128  # outputs and inputs of an array
_INPUTS_FIRST = ("matmul", "conv_transpose")
_NONE = ("bias", "norm", "vector", "embedding", "other")


@dataclass(frozen=True)
class Crossbars(Meter):
    """Arrays of 64 outputs x 128 inputs that hold a network's weights, one cell a weight.

    A weight's matrix is cut into bands of 64 outputs. Inputs whose weights in a band are all zero get no word line;
    those that are left move together and fill arrays of 128. Biases, norms and look-ups take none; a grouped
    convolution counts as one matrix. Cells of fewer bits than a weight, and pairs for the two signs, are a factor that
    all nets share (four arrays for 8 bits and a sign in cells of 4 bits).

    Reference: Yuan et al., An ultra-efficient memristor-based DNN framework, ISLPED 2019.
    """

    unit: ClassVar[str] = "crossbar arrays"
    lowered_by: ClassVar[str] = "channels"
    by_place: ClassVar[bool] = True
    shown: ClassVar[bool] = False

    def cost(self, site: Site, packing: Packing) -> float:
        """Whole channels, or columns of arrays, or whole arrays, where the packing says so; else zeros anywhere."""
        if site.op in _NONE or not packing.nnz:
            return 0.0
        rows = max(_rows(site), 1)
        cols, density, bands = packing.n / rows, packing.nnz / packing.n, math.ceil(rows / ROWS)
        if packing.pattern == "channels":
            return float(_ceil(rows * density / ROWS) * _ceil(cols / COLS))
        block = re.fullmatch(r"(\d+)x(\d+)", packing.pattern)
        height, width = (int(x) for x in block.groups()) if block else (1, 1)
        blocks = max(min(rows, ROWS) / height, 1.0)  # above one another in a band
        apart = 0.0 if packing.even and blocks == 1 else 1 - 1 / bands  # how freely bands share the inputs
        share = 1 - (1 - density) ** blocks  # of a band's inputs that have a weight there, on average
        arrays = _ceil(bands * cols * share / COLS) if width >= COLS else bands * _expected(cols, share, apart)
        return float(min(arrays, _ceil(packing.nnz / (height * width))))

    def measure(self, net: Inventory) -> float:
        return sum(_arrays(w) for w in net.weights if w.counted and w.op not in _NONE)


def _rows(site: Site) -> int:
    """Outputs, as the matrix has them."""
    if site.op == "channels":
        return site.shape[0] * sum(m.repeat for m in site.members)
    return site.shape[1 if site.op in _INPUTS_FIRST else 0] if len(site.shape) > 1 else 1


def _arrays(weight: Weight) -> int:
    value = weight.value
    if value.dim() > 1:
        value = value.transpose(0, 1) if weight.op in _INPUTS_FIRST else value
        value = value.flatten(1)
    bands = value.reshape(-1, value.shape[-1]).split(ROWS)
    return sum(_ceil(int((band != 0).any(0).sum()) / COLS) for band in bands)


def _expected(cols: float, share: float, apart: float) -> float:
    """Arrays of a band of whose inputs a share is used: the mean over bands, which share unevenly.

    With the mean alone the best level is the last before a whole array, where every second band needs one more.
    """
    used, spread = cols * share, math.sqrt(apart * cols * share * (1 - share))
    if not spread:
        return float(_ceil(used / COLS))
    beyond = (COLS * k + 0.5 - used for k in range(_ceil(cols / COLS)))  # the next array is begun
    return sum(math.erfc(x / spread / math.sqrt(2)) / 2 for x in beyond)


def _ceil(x: float) -> int:
    return math.ceil(x - 1e-9)
