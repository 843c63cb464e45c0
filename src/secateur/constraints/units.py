"""Units: whole hidden units go, of a pair of linear layers or of a recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.constraints.rows import Rows


@dataclass(frozen=True)
class Units(Rows):
    """{Z : at most k hidden units are nonzero}; the level is k, 0..units.

    Between two linear layers a unit is a row of the first; the second loses its column: these are the channels that
    `rows` removes there. Of an LSTM, GRU or Elman layer a unit is its gate rows (4, 3 or 1) of the input and of the
    recurrent weight, with its entries of both biases, its recurrent column and its readers' columns. Torch keeps one
    number of units for all layers and directions of a module: there the units of one number go together. The graph
    removes dead units physically. LSTMs with `proj_size`, and cells that the code calls step by step, keep theirs.

    Reference: Wen et al., ICLR 2018, arXiv:1709.05027 (recurrent units); card P3 (rows of a linear layer).
    """

    view: ClassVar[str] = "unit"
    unit: ClassVar[str] = ""
    level_keys: ClassVar[tuple[str, ...]] = ("units", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Wen et al., Learning intrinsic sparse structures within LSTM, arXiv:1709.05027"
