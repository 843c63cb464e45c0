"""A network on its way through a run, and the finished answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from secateur import graph
from secateur.budget import kinds, overlap
from secateur.budget.machine import Machine, pattern_of
from secateur.contracts import Effective, Term
from secateur.errors import ConstraintError
from secateur.export import written
from secateur.export.membership import Asked
from secateur.export.written import Written
from secateur.graph.counts import inventory
from secateur.shell import named_inputs
from secateur.terms import cutting, feasible, views
from secateur.terms.live import SETTLED, project_live
from secateur.training.batches import first_batch
from secateur.types import Inventory, Level, Limit, Weights

if TYPE_CHECKING:
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe


@dataclass
class Net:
    """A network on its way: module, trace, terms with their levels, the cuts made so far, and what was asked of it."""

    module: nn.Module
    traced: Traced
    terms: tuple[Term, ...]
    levels: dict[str, Level] = field(default_factory=dict)
    surgery: list[dict[str, Any]] = field(default_factory=list)
    asked: Asked | None = None
    activations: tuple[Term, ...] = ()  # the grids in its forward pass, once it is rewritten
    short: bool = False  # are vectors outside the sets written with few digits?
    machine: Machine | None = None  # prices the sites where a budget names what a machine decides
    _smaller: tuple[Weights, graph.Proof, nn.Module] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        channels = any(t.site.op == "channels" for t in self.terms)
        groups = self.traced.groups if channels else ()
        if self.machine is not None:
            self.terms = self.machine.priced(self.terms, groups, self.traced.program.shapes)
        self.terms = overlap.apart(self.terms, self.weights)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The live parameters, detached."""
        return {k: p.detach() for k, p in self.module.named_parameters()}

    def pinned(self, surgery: Mapping[str, Any]) -> set[tuple[str, int]]:
        """The axes of a planned removal whose channels must stay, because a set would not survive it."""
        return cutting.pinned(self.terms, self.traced.program.shapes, surgery)

    @property
    def companions(self) -> Effective | None:
        """What must go with removed channels, where channels are removed (`Problem.companions`)."""
        return self.traced.kept if any(t.site.op == "channels" for t in self.terms) else None

    def costs(self, files: Written, chosen: Sequence[str] | None = None) -> dict[str, float]:
        """What the net costs as written in `files`, by each of these kinds of limits.

        What a machine decides is its table's prediction here; `reading` runs the file.

        Args:
            chosen: None: all that need no machine.
        """
        return self.predicted(files.module, lambda: len(files.sct), chosen, lambda: files.onnx)

    def predicted(
        self,
        small: nn.Module,
        file: Callable[[], int],
        chosen: Sequence[str] | None = None,
        onnx: Callable[[], bytes] | None = None,
    ) -> dict[str, float]:
        """The same of a net that is not written: `small` is this one without what is dead."""
        return kinds.measured(self.with_table(inventory(small, self.traced, file, onnx)), chosen)

    def with_table(self, found: Inventory, rest: bool = True) -> Inventory:
        """The inventory of this net, or of a part of it, with what the machine's table says of that.

        Args:
            rest: with what surrounds the layers.
        """
        if self.machine is None:
            return found
        return replace(found, table=self.machine.of(found.weights, self._patterns, rest))

    @property
    def kinds(self) -> list[str]:
        """What can be predicted of it: all that need no machine, and what its machine is asked about."""
        return [*kinds.counted(), *(self.machine.kinds if self.machine is not None else ())]

    def reading(self, files: Written, kind: str) -> dict[str, Any]:
        """What running the written file shows (`Meter.reading`), and what was predicted; of another machine's table
        the prediction alone.
        """
        predicted = self.costs(files, [kind])[kind]
        if self.machine is not None and self.machine.given:
            return {"value": predicted, "predicted": predicted}
        found = inventory(files.module, self.traced, lambda: len(files.sct), lambda: files.onnx)
        return {**kinds.meter(kind).reading(found), "predicted": predicted}

    @property
    def _patterns(self) -> dict[str, str]:
        """By weight, where its zeros may lie."""
        params = dict(self.module.named_parameters())
        return {
            m.param: pattern_of(t, views.shape(t.site, t.constraint.view, params))
            for t in self.terms
            for m in t.site.members
            if t.site.op != "channels"
        }

    def supported(
        self, levels: Mapping[str, Level], weights: Weights, h: feasible.Importance, settled: float = SETTLED
    ) -> dict[str, Tensor]:
        """`weights` with the support parts of the terms projected; only the parameters that a term acts on.

        Args:
            settled: as `project_live` takes it.
        """
        terms, at = feasible.support_only(self.terms, levels)
        effective = self.traced.effective
        return project_live(
            terms, lambda w, i, t: dict(at), weights, h, 1.0, effective, self.companions, settled=settled
        )[1]

    def member(self, levels: Mapping[str, Level], weights: Weights) -> Weights:
        """All `weights`, those of the terms projected onto their sets whole."""
        return {**weights, **feasible.project(self.terms, levels, weights)}

    def smaller(self, weights: Weights, proof: graph.Proof = "always") -> nn.Module:
        """What would be written with these weights, in evaluation mode; the last answer is kept, to be read only.

        Weights are known by the very mapping: nobody changes one that was handed in.
        """
        if self._smaller is None or self._smaller[0] is not weights or self._smaller[1] != proof:
            how = (self.pinned, self.terms, self.short, bool(self.activations), proof)
            self._smaller = weights, proof, written.smaller(self.module, self.traced, weights, *how)[0].eval()
        return self._smaller[2]

    def write(self, example: Example) -> Written:
        """The files of the net as it is; it is not changed."""
        return written.write(
            *(self.module, self.traced, example, None, self.surgery, self.pinned, self.terms, self.short),
            integers=bool(self.activations),
        )


@dataclass(frozen=True)
class Point:
    """One level of a finished net: its number, the net as it was asked, what it may cost, its metric on validation."""

    at: int
    net: Net
    levels: Mapping[str, Level]
    limits: tuple[Limit, ...]
    metric: float

    def costs(self, files: Written) -> dict[str, float]:
        """What the level costs as a file of its own."""
        return self.net.costs(files)


@dataclass
class Candidate:
    """A finished answer: the net, its files, its metric on validation, what one-shot gave before any retraining."""

    name: str
    net: Net
    files: Written
    metric: float
    raw: dict[str, Any]
    stages: list[dict[str, Any]]
    outcome: str = "converged"
    readings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of what a machine decides (`Net.reading`)
    points: tuple[Point, ...] = ()  # of a net of several levels: each, from loose to tight

    @property
    def each_level(self) -> tuple[Written, ...]:
        """The files of every level; of a net without levels its own."""
        return (self.files, *self.files.levels)

    @property
    def nbytes(self) -> int:
        """Bytes of the `.sct` file."""
        return len(self.files.sct)

    def cost(self, kind: str) -> float:
        """What the answer costs by one of the metered kinds."""
        return self.readings[kind]["value"] if kind in self.readings else self.net.costs(self.files, [kind])[kind]


def sizes(
    module: nn.Module, traced: Traced, file: Callable[[], int], chosen: Sequence[str] | None = None
) -> dict[str, float]:
    """What a net costs by each of the chosen kinds of limits (None: by all).

    Args:
        traced: of `module`, or of what it was before channels were removed.
        file: answers the bytes of its `.sct` file; asked only where one of the kinds reads them.
    """
    return kinds.measured(inventory(module, traced, file), chosen)


def example_of(model: nn.Module, train: Any, recipe: Recipe, given: Any = None, dynamic: bool | None = None) -> Example:
    """What was given in the call, else in the recipe, else examples of the training data."""
    dynamic = recipe.dynamic_batch if dynamic is None else dynamic
    given = recipe.example_inputs if given is None else given
    if given is None:
        return graph.settle(model, first_batch(train), dynamic, cut=2)
    return graph.settle(model, named_inputs.read(given) if isinstance(given, str) else given, dynamic)


def check_finite(model: nn.Module) -> None:
    """ConstraintError when a parameter or buffer holds NaN or infinity."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            raise ConstraintError(
                f"{name} {list(value.shape)}: {bad} values are NaN or infinite; finite weights are needed; check the "
                "training or the file that they came from"
            )
