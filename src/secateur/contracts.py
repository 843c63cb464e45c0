"""The abstract classes of all rooms. Read this file first.

A class is abstract (here) or final (one file in its room). Final classes are frozen dataclasses: their fields are
their configuration, their recipe section and their record. Nothing here imports torch when run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from secateur.curves import DistanceCurve
from secateur.errors import ConstraintError
from secateur.limits import count
from secateur.problem import Problem
from secateur.types import Bands, Form, Inventory, Level, Packing, Same, Site, Solution, Stage, Weights

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
    by_columns: ClassVar[bool] = False  # can be settled a block of columns at a time: `rest`
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

    def rest(self, level: Level, kept: Tensor) -> Level:
        """The level of the columns that follow, once the first ones are settled as `kept` [rows, some columns];
        ConstraintError where these cannot be settled alone (a group is cut in two). Only `by_columns` sets.
        """
        raise ConstraintError(f"{self.name}: cannot be settled a block of columns at a time")

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


@dataclass(frozen=True)
class Term:
    """One constrained site, its set and, if the recipe gave one (`given`), its level; else the allocator picks it."""

    site: Site
    constraint: Constraint
    level: Level = None
    given: bool = False


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
class Saliency(ABC):
    """How much a weight matters, as the weight h of the projection's metric sum h (w - z)^2.

    `needs` lists what it reads: any of `STATISTICS`, and `generator` (a seeded torch.Generator). The score of the
    field is sqrt(h) * |w|: |w| * v^a is h = v^(2a); Taylor |w * g| is h = g^2.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""

    @abstractmethod
    def importance(self, weight: Tensor, stats: Mapping[str, Any]) -> Tensor | None:
        """h, same shape as `weight`, >= 0, finite; None means all ones."""


class SolverState(Protocol):
    """What the loop asks of a solver's state (`training/phases.py`); `solvers/_state.py` answers for most solvers.

    `round_changed` tells the caller to restart the learning rate.
    """

    round_changed: bool

    @property
    def span(self) -> tuple[int, int]:
        """Start and length, in steps, of the present learning-rate round."""

    def tracked(self) -> dict[str, Tensor]:
        """Per parameter what weight averaging follows: the live weights, or latent ones behind them."""

    def candidate(self, weights: Weights) -> dict[str, Tensor]:
        """The point at today's levels that belongs to `weights` (as `tracked`, or their average); new tensors."""

    def numbers(self) -> dict[str, float]:
        """What the curves show: `primal_residual`, `rho`, `mask_churn`, ..."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON for a resume that goes on to the bit."""

    def load_state_dict(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Exactly as saved, into a fresh state of the same problem whose parameters have been restored."""


@dataclass(frozen=True)
class Solver(ABC):
    """Takes the weights to the sets.

    The caller owns the loop (ours in `training`, or the user's): loss backward, optimizer step, then `step`. The only
    thing changed in place is `problem.params`.
    """

    instant: ClassVar[bool] = False  # init() lands on the sets at once: no approach phase is needed
    moves_values: ClassVar[bool] = False  # can approach value sets (bits, codebooks), not supports only
    needs: ClassVar[frozenset[str]] = frozenset()  # statistics that it asks of the problem: names of STATISTICS
    reference: ClassVar[str] = ""

    def refuses(self, term: Term) -> str | None:
        """Why the solver cannot act on that term; asked when the recipe meets the net."""
        return None

    def legs(self) -> tuple[tuple[Solver, float, float, float], ...]:
        """The approach in parts between which the net may be cut: (solver, share of the steps, tightness from, to)."""
        return ((self, 1.0, 0.0, 1.0),)

    @abstractmethod
    def init(self, problem: Problem) -> SolverState:
        """A fresh state; its class is the solver's own, which `step`, `finish` and `penalty` are called with."""

    @abstractmethod
    def step(self, state: Any) -> SolverState:
        """After one optimizer step: proximal pull, round updates, masks."""

    @abstractmethod
    def finish(self, state: Any) -> Solution:
        """The projected answer at the final levels."""

    def penalty(self, state: Any) -> Tensor | float:
        """Added to the loss; 0 where the solver takes an exact proximal step in `step`."""
        return 0.0


@dataclass(frozen=True)
class Objective(ABC):
    """One summand of what is minimised."""

    weight: float = 1.0
    needs_teacher: ClassVar[bool] = False
    reference: ClassVar[str] = ""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, teacher_outputs: Any, base_loss: Any) -> Tensor:
        """Scalar loss of a batch, before `weight`. `base_loss(outputs, targets)` is the user's task loss."""


@dataclass(frozen=True)
class Meter(ABC):
    """One kind of cost, and all that is known of it. The file's name is the kind in recipes, plans and reports.

    Costs are sums over sites and a part that no level changes; what estimates miss of that is found out by measuring.

    Attributes:
        unit, step: what is counted, in the plural: `bytes`, `nonzeros`; told rounded up to multiples of the step.
        margin: share of a limit kept free until the values are trained, which moves the cost by less. 0: it does not.
        in_file: the packed file alone tells it, else the weights do; by_place: it matters where the kept ones lie.
        lowered_by: fewer bits (`values`), removed `channels`, or single zeros (`weights`): the recipe's default sets.
        on_machine: priced by `Site.prices`, found by running the written file; asked only where a budget names it.
    """

    unit: ClassVar[str] = ""
    margin: ClassVar[float] = 0.0
    in_file: ClassVar[bool] = False
    lowered_by: ClassVar[str] = "weights"
    on_machine: ClassVar[bool] = False
    by_place: ClassVar[bool] = False
    shown: ClassVar[bool] = True  # in every table; else where a budget names it
    step: ClassVar[float] = 1.0

    @abstractmethod
    def cost(self, site: Site, packing: Packing) -> float:
        """Expected cost of one site; of a bias or norm 0 where they do not count."""

    @abstractmethod
    def measure(self, net: Inventory) -> float:
        """The exact cost of a written network, or of the part of it that is given."""

    def reading(self, net: Inventory) -> dict[str, Any]:
        """`measure` as `value`, and what a report says beside it."""
        return {"value": self.measure(net)}

    def parse(self, given: Any) -> float:
        """A limit as a recipe writes it, in base units; ValueError says what is needed. Here: counts, `1.5K`."""
        return count(given)

    def write(self, value: float) -> str:
        """The text that `parse` reads as that value."""
        return f"{round(value, 9):.12g}"

    def least(self, value: float) -> str:
        """For refusals: that no network of these constraints costs less."""
        return f"the smallest network that these constraints give takes {value:.12g} {self.unit}"
