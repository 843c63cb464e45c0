"""Sets of weights: which values may a weight take, and where does one act?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.curves import DistanceCurve
from secateur.types import Bands, Form, Level, Packing, Same, Site, Stage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Constraint(ABC):
    """A set of matrices with a projection: which values may a weight take?

    Every method sees the matrix [rows, cols] that `view` declares (`terms/views.py`): rows are outputs, or one row per
    coupled channel. Equal scores: the lower flat index stays. Tensors are never changed in place; NaN or infinity
    raises ConstraintError. The level None means dense and is handled by the public wrappers' callers, not here.
    """

    view: ClassVar[str] = "oc"  # oc, channels: columns in any order | o_khkw_c | readers | activation
    row_order: ClassVar[bool] = False  # must rows stand where they are? (a set of values, equal along antidiagonals)
    level_keys: ClassVar[tuple[str, ...]] = ()  # what `parse_level` understands
    exact: ClassVar[bool] = True  # project() is the true nearest point
    stage: ClassVar[Stage] = Stage.SUPPORT  # what it says of a weight; of a joint set the last stage of its parts
    # Does every support lie inside those of the levels after it on the menu, for one weight and importance?
    nests: ClassVar[bool] = False
    unit: ClassVar[str] = ""  # what it keeps or drops whole: row | column | kernel (the taps of an input and an output)
    reference: ClassVar[str] = ""  # paper, arXiv id, section

    @abstractmethod
    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        """The menu for a matrix of this shape, in any order; a lazy sequence (range) where it is long."""

    @abstractmethod
    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        """The level that a recipe's `level: {sparsity: 0.9}` means; ConstraintError names the keys understood."""

    @abstractmethod
    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """Nearest member in sum h * (w - z)^2; h = `importance` (same shape, >= 0), or 1 if None."""

    @abstractmethod
    def contains(self, weight: Tensor, level: Level) -> bool:
        """Is the matrix a member of the set at this level?"""

    @abstractmethod
    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The smooth piece of the set through the member `weight`: structure fixed, free values move.

        Top-k: the support. Codebook: support and assignment. Uniform: codes (the scale is free). Low rank: all
        matrices of this rank. Retraining after the hard mapping is training inside this piece.
        """

    @abstractmethod
    def packing(self, shape: tuple[int, int], level: Level) -> Packing | tuple[Packing, ...]:
        """What is stored of a member: estimate and most bytes of each tensor, in the order of `realize`."""

    def realize(self, matrix: Tensor, level: Level) -> Form:
        """As what the member `matrix` is stored and run; level None: not known, the values decide."""
        return Same()

    def units_of(self, shape: tuple[int, int]) -> Tensor:
        """What goes or stays together: the number of each weight's unit, int64 [rows, cols], from 0 without gaps.

        Default: every weight for itself, as where a set says how many of some weights stay.
        """
        import torch  # lazily: the bottom modules import without torch

        return torch.arange(shape[0] * shape[1]).reshape(shape)

    def unfit(self, site: Site) -> str | None:
        """Why the set cannot act on this kind of site, in words for the user; None: it can."""
        return None

    def distance(self, weight: Tensor, importance: Tensor | None = None) -> Callable[[Level], float]:
        """The lazy curve level -> sum h (w - project(w))^2. Override where a closed form is cheaper (`curves.py`)."""
        return DistanceCurve(self.project, weight, importance)

    def masked(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """mask -> project(weight, level, importance where the bool mask is set): for joint sets, to share work."""

        def project(kept: Tensor) -> Tensor:
            h = kept.to(weight.dtype) if importance is None else importance.masked_fill(~kept, 0.0)
            return self.project(weight, level, h)

        return project

    def select(self, gain: Tensor, level: Level) -> Tensor:
        """Bool mask of the support with the largest sum of positive `gain` (float64 [rows, cols]), in a joint set."""
        return self.project(gain.clamp(min=0.0).sqrt(), level) > 0

    def split(self, level: Level) -> tuple[tuple[Constraint, Level], ...]:
        """The sets whose intersection this one is, each with its level; a plain set is its own only part."""
        return ((self, level),)

    def before(self, stage: Stage, level: Level) -> tuple[Constraint, Level] | None:
        """This set without its parts of `stage` and later, with what is left of the level; None = nothing is left."""
        return (self, level) if self.stage < stage else None

    def fitted(self, matrices: Iterable[Tensor] | None) -> Constraint:
        """With what it takes from the dense net: the weights of all its sites as its view shows them; None: without."""
        return self

    def within(self, unit: str, shape: tuple[int, int], level: Level) -> float:
        """The largest part of any one `unit` that a member may keep; for the size of joint sets."""
        return 1.0

    @property
    def chain(self) -> tuple[Constraint, tuple[float, ...]] | None:
        """Levels chosen at run time: the set of each, the shares of a budget for the tighter ones. None: one level."""
        return None

    def on(self, site: Site) -> Constraint:
        """The set as it acts on `site`; for sets whose units hang on the kernel's size or the groups of a layer."""
        return self

    def mask(self, weight: Tensor, level: Level) -> Tensor:
        """Where the piece through the member `weight` may be nonzero; of sets of supports a kept unit as a whole."""
        return weight.ne(0)

    @property
    def keeps_zeros(self) -> bool:
        """Does projecting leave zeros at zero? Then sets before it hold after it."""
        return self.stage == Stage.SUPPORT

    @property
    def may_stay_dense(self) -> bool:
        """May the budget leave a weight as it is, where the recipe gives no level?"""
        return True

    @property
    def rounding(self) -> float:
        """Relative error of storing a value, where the projection is exact up to that only; 0 = the dtype's own."""
        return 0.0

    def tightest(self, weight: Tensor, level: Level) -> Level:
        """The first level of the menu that contains the member `weight` of `level` (None: only the last does and it was
        dense before); sets that do not nest keep theirs.
        """
        if not self.nests:
            return level
        menu = self.levels((int(weight.shape[0]), int(weight.shape[1])))
        at = bisect_left(range(len(menu) - 1), True, key=lambda i: self.contains(weight, menu[i]))
        return None if level is None and at == len(menu) - 1 else menu[at]

    def bands(self, shape: tuple[int, int]) -> Bands | None:
        """Where a block is the places of one band of rows and one of columns, the level counts the blocks kept, and the
        user asks for channels in an order in which blocks keep more (`run/permute.py`); None: any order is as good.
        """
        return None

    def after_cut(
        self, shape: tuple[int, int], kept_rows: Sequence[int], kept_cols: Sequence[int], level: Level
    ) -> tuple[Constraint, Level] | None:
        """The set and level that hold of what is left of any member when only these rows and columns stay, ascending
        places in the matrix of `shape`. None: the set would not survive it, and the channels stay; whether it does
        hangs on what stays, not on the level. Values stay values; supports and forms say for themselves.
        """
        return (self, level) if self.stage == Stage.VALUES else None

    def blocks(self, shape: tuple[int, int]) -> Bands | None:
        """How a set cuts the matrix into blocks of one band of rows and one of columns, which go or stay whole and
        count one each; None: it does not.
        """
        return None

    def in_runs(self, n: int) -> Constraint:
        """The set whose rows go or stay in runs of `n`, where it is one of whole rows; else the same set."""
        return self

    @property
    def name(self) -> str:
        """The name in recipes, which is the file's; a joint set's are those of its parts: `topk + codebook`."""
        parts = [part for part, _ in self.split(None)]
        return type(self).__module__.rpartition(".")[2] if parts == [self] else " + ".join(p.name for p in parts)

    def with_free_zero(self) -> Constraint:
        """The same set with 0 free of charge where it has none, for a joint set; that is refused where none is kept."""
        return self

    @property
    def trials(self) -> tuple[tuple[int, int], ...]:
        """Shapes for the conformance tests: tiny, each of five units (here weights) that are kept or dropped whole, or
        more: with fewer a wrong score may choose the same ones as the right one.
        """
        return ((1, 8), (2, 4))

    def grid(self, weight: Tensor) -> Tensor | None:
        """Scales, one or one a row, with weight == scale * (a code that fits int8) exactly; None: on no such grid."""
        return None

    def at_tightness(self, shape: tuple[int, int], level: Level, tightness: float) -> Level:
        """The level on the way from dense (0) to `level` (1). Default: dense until 1."""
        return level if tightness >= 1.0 else None


@dataclass(frozen=True)
class ActivationSet(Constraint):
    """A grid for activations, {scale * q}: its matrix is the calibration sample, a row per batch; stored is the scale.

    `where` names layers: what they read lies on such a grid. `signed` is set by the place: False behind a ReLU.
    """

    signed: bool = True
    batches: int = 20  # of training data that calibration looks at
    view: ClassVar[str] = "activation"
    stage: ClassVar[Stage] = Stage.VALUES

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest code; the code 0 is the value 0."""
        return (-128, 127) if self.signed else (0, 255)

    @abstractmethod
    def scale(self, sample: Tensor) -> float:
        """The scale for values like those of `sample`, float [batches, values]: a float32 number > 0."""


class Piece(ABC):
    """A smooth part of a set of matrices of one shape, in which masked retraining moves.

    A linear one is a subspace, and `project` the orthogonal projection onto it, so that it also maps gradients. A
    curved one (`linear` False) is a manifold: `project` gives a point of it and is, to first order around the matrices
    of the piece, the orthogonal projection of the step onto the tangent space (a retraction).
    """

    linear: ClassVar[bool] = True

    @abstractmethod
    def project(self, matrix: Tensor) -> Tensor:
        """The point of the piece for this matrix; a new tensor."""

    def follow(self, matrix: Tensor) -> Tensor:
        """Cheap stand-in for the set's full projection while training changes little; default: stay in the piece."""
        return self.project(matrix)

    def advance(self, latent: Tensor, member: Tensor, moved: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """One straight-through step: the new latent weights, and the member that the net shows next.

        Args:
            latent: the weights before rounding.
            member: what the net showed, `moved`: what the optimizer made of that.
            n: such steps before the assignment is final.
        """
        latent = latent + (moved - member)
        return latent, self.follow(latent)


@dataclass(frozen=True)
class Term:
    """One constrained site, its set and, if the recipe gave one (`given`), its level; else the allocator picks it."""

    site: Site
    constraint: Constraint
    level: Level = None
    given: bool = False
