"""The nouns. Plain frozen data, no torch at run time; read `contracts` beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# A level is what a constraint's menu holds: an int (kept weights, bits, kept rows), a tuple of levels (joint sets),
# or None = leave this site dense.
Level = int | tuple[Any, ...] | None
Weights = Mapping[str, "Tensor"]  # parameter name -> tensor


class Stage(IntEnum):
    """What a set says of a weight. Sets on one site act in this order: what is stored of it, where, which values."""

    FORM = 0  # which tensors stand for the weight (factors)
    SUPPORT = 1  # which weights are zero
    VALUES = 2  # which values they take


@dataclass(frozen=True)
class Member:
    """One parameter of a site and how channel `r` of the site sits in it.

    `axis` is the parameter's axis that runs over the site's rows; each row owns `repeat` consecutive entries of
    `index` (a linear layer behind a flatten has repeat = H*W). `index` lists the axis' indices in row order; None
    means all of them, in order.
    """

    param: str
    axis: int = 0
    repeat: int = 1
    index: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Site:
    """A place where a constraint can act: one weight, or several weights coupled along one channel axis.

    Attributes:
        name: the parameter's dotted name (`conv1.weight`); for a coupled group the name of its first producer,
            with the suffix `.channels`.
        op: conv | conv_transpose | linear | matmul | recurrent | embedding | bias | norm | channels | activation.
            `matmul` is a parameter that the code multiplies itself (`x @ self.w`, einsum, bilinear forms); `embedding`
            one that is looked up or added (position embeddings); `bias`, `norm` also vectors with axes of length one.
        shape: the parameter's shape (for `channels`: (rows,)).
        members: the parameters that are written by a projection. One for ordinary sites. For `channels`: the
            producers whose rows are zeroed together.
        positions: how often each weight is multiplied per example (output positions, time steps; 0 for what is
            looked up or added); macs = nnz * positions.
        groups: convolution groups.
        last: the layer makes a model output.
        removes: for `channels`: further parameters from which a removed row disappears physically (norms, biases,
            the readers' input axes).
        readers: the weights of the layers that read what the rows make: on every way to an output the next weight,
            behind activations, norms, pools and sums; in the network's order. What a recurrent layer reads of itself
            inside its call is not listed. For `channels`: those that read these very rows; one of them in `removes`
            stands there with its input axis, one that is a member (a depthwise convolution) does not.
        rows: the parameter's axes that run over outputs, the rows of its matrix (`terms/views.py`); the other axes are
            summed over. A layer keeps its outputs on axis 0, `x @ w` on axis 1, a transposed convolution on axis 1 of
            each group's part of axis 0.
        prices: by kind of limit, what a table of a machine says that a tensor stored here costs (`budget/machine.py`).
        family: of `channels`: `head` of attention or `unit` of a recurrent layer, with sets of their own; "" for
            plain channels.
        overlap: by meter, (factor, part): where channels and sets inside them act on the same weights, the site's own
            cost is the factor times what its packings cost, less the part (`budget/overlap.py`).
    """

    name: str
    op: str
    shape: tuple[int, ...]
    members: tuple[Member, ...]
    positions: int = 1
    groups: int = 1
    last: bool = False
    removes: tuple[Member, ...] = ()
    readers: tuple[str, ...] = ()
    rows: tuple[int, ...] = (0,)
    family: str = ""
    prices: Mapping[str, Price] = field(default_factory=dict, compare=False, repr=False)
    overlap: Mapping[object, tuple[float, float]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def of(self) -> str:
        """weight | channels | activation.

        An activation is a value of the forward pass, named by its call; `shape` is the value's on the example, its one
        member the scale. The matrix that a set sees is what calibration saw, a row per batch.
        """
        return self.op if self.op in ("channels", "activation") else "weight"

    @property
    def n(self) -> int:
        """Number of weights (for `channels`: number of rows)."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LeftOut:
    """A weight of two or more axes on which no constraint can act: it stays as it is, and every budget counts it.

    Attributes:
        why: in words: frozen, not used by forward, or handed to an output as it is.
        positions: how often each weight is multiplied per example.
    """

    name: str
    shape: tuple[int, ...]
    why: str
    positions: int = 0

    @property
    def n(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as float32."""
        return 4 * self.n


@dataclass(frozen=True)
class Held:
    """Channels of a weight that cannot be removed physically: zeros may come, the size stays.

    Attributes:
        n, of: how many of the channels that the weight makes.
        why: in words.
    """

    name: str
    n: int
    of: int
    why: str


_BESIDE = ("bias", "norm", "vector")  # neither weights nor multiply-adds, by the custom of the field


@dataclass(frozen=True)
class Weight:
    """One parameter of a network.

    Attributes:
        op: the site's; of a parameter that is none `vector` (one axis) or `other`.
        nnz: nonzero values.
        positions: how often each value is multiplied per example.
        left_out: why no constraint can act on it, None where one can.
        value: the parameter, detached.
        of: its name in the net that was traced: of a layer that was split in two, the layer's weight.
    """

    name: str
    op: str
    nnz: int
    positions: int
    left_out: str | None
    value: Tensor
    of: str = ""

    @property
    def counted(self) -> bool:
        """Is it a weight? Biases and norms are not."""
        return self.op not in _BESIDE

    @property
    def macs(self) -> int:
        """Multiply-adds per example by its nonzero values."""
        return self.nnz * self.positions if self.counted else 0


@dataclass(frozen=True)
class Inventory:
    """What a meter measures: a network as it is written, or a part of one.

    Attributes:
        weights: every parameter once.
        file: answers the bytes of the `.sct` file; asked at most once, and only by a meter that reads `nbytes`.
        onnx: answers the written `.onnx` file, for meters that run it; None: there is none.
        table: by kind, answers what a machine's table says of the net; where it does, nothing is run.
    """

    weights: tuple[Weight, ...]
    file: Callable[[], int]
    onnx: Callable[[], bytes] | None = None
    table: Mapping[str, Callable[[], float]] = field(default_factory=dict)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the `.sct` file."""
        return self.file()


# What the entropy coder needs of what it may need at most, as measured. A raw fp32 weight: 27 bits where all are kept,
# 23.5 where few are, which are the large ones (their exponents agree). An index or grid code: 0.9-0.98 of log2(number
# of values), for the cells of the best scalar quantiser are nearly equally full (of a Gaussian 1.91 of 2 bits, 3.77 of
# 4). A codebook's entries: 27 of 32 bits.
_RAW_FEW, RAW_ALL = 23.5, 27.0
VALUE_ENTROPY, _ENTRY_ENTROPY = 0.94, 27 / 32


@dataclass(frozen=True)
class Bands:
    """How a set cuts a matrix into blocks.

    Attributes:
        rows, cols: int64, the band of each row and of each column, counted from 0.
        each_row: as many blocks are kept in every band of rows, not in the whole matrix.
    """

    rows: Tensor
    cols: Tensor
    each_row: bool


@dataclass(frozen=True)
class Packing:
    """What will be stored for one tensor: `n` positions, `nnz` kept, each value `bits` wide.

    `n_values` > 0 says values come from a codebook of that many entries of `entry_bits` each. `structure_bits`
    replaces the free-position cost log2 C(n, nnz) when the positions are structured (N:M, rows); None = free.
    `expected_bits` is what a value is expected to take after entropy coding (the hard maximum counts `bits`); None =
    23.5 (few kept) to 27 (all) of 32 for raw fp32 values, else `bits`. `pattern` says where zeros may lie, as kernels
    care: `any`, `4x1` (outputs x inputs of a block), `:4` (groups along the inputs), `channels` (whole outputs).
    `even`: every block of the set keeps as many.
    """

    n: int
    nnz: int
    bits: float = 32.0
    n_values: int = 0
    entry_bits: int = 32
    structure_bits: float | None = None
    layout: str = "auto"
    codec: str = "auto"
    expected_bits: float | None = None
    pattern: str = "any"
    even: bool = False

    @property
    def ideal_bits(self) -> float:
        """log2 C(n, nnz) + nnz * bits + codebook: the bound of DESIGN.md section 5 before the 1.03 and the 32 bytes."""
        return self._where + self.nnz * self.bits + self.n_values * self.entry_bits

    @property
    def _where(self) -> float:
        return log2_choose(self.n, self.nnz) if self.structure_bits is None else self.structure_bits

    @property
    def estimate(self) -> float:
        """Expected bytes in the file."""
        expected = self.expected_bits
        if expected is None:
            raw = _RAW_FEW + (RAW_ALL - _RAW_FEW) * self.nnz / max(self.n, 1)
            expected = raw if self.bits == 32 and self.n_values == 0 else self.bits
        return (self._where + self.nnz * expected + _ENTRY_ENTROPY * self.n_values * self.entry_bits) / 8 + 2

    @property
    def max_nbytes(self) -> int:
        """Hard maximum in bytes: the format's size law."""
        return math.ceil(1.03 * self.ideal_bits / 8) + 32


@dataclass(frozen=True, eq=False)
class Same:
    """A form: the member is stored and run as the matrix that it is."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A form: the member is stored and run as a product, each factor a tensor and a layer of its own.

    `factors` multiply in the order given to the matrix, [rows, r] [r, cols]; the last one meets the input first.
    """

    factors: tuple[Tensor, ...]


Form = Same | Chain
Price = Callable[[Packing], float]  # what a stored tensor costs at a site


def log2_choose(n: int, k: int) -> float:
    """log2 of the binomial coefficient C(n, k); 0 for k = 0 or k = n."""
    if k <= 0 or k >= n:
        return 0.0
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


@dataclass(frozen=True)
class Limit:
    """One hard limit of a budget: its kind (`budget.kinds`) and its value in base units."""

    kind: str
    value: float


@dataclass(frozen=True)
class Solution:
    """The answer: projected weights, the level each site ended on, residuals and an outcome code.

    Attributes:
        weights: by the parameter's name: any that the answer sets, those that no term acts on too.
        outcome: `converged`, `not_converged` (feasible all the same) or `one_shot_better`.
        points: looser answers on the way to this one, from loose to tight: each a member of the sets at its own levels,
            each support inside the one before, this answer's inside all of them.
    """

    weights: dict[str, Tensor]
    levels: dict[str, Level]
    outcome: str = "converged"
    residuals: dict[str, float] = field(default_factory=dict)
    points: tuple[Solution, ...] = ()


@dataclass(frozen=True)
class Progress:
    """One progress event for `on_progress`: stage name, done and total units, seconds so far, free-form metrics."""

    stage: str
    done: int
    total: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
