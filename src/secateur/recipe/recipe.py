"""The recipe: what a YAML file, `--set a.b=c` and the Python call say, checked before any work starts.

One pydantic model per section; unknown keys are refused with the nearest known one. `Recipe.build_terms` resolves
`constrain` against the sites that were found, so that the resolved recipe lists every site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from secateur.budget import kinds
from secateur.contracts import TRIAL, ActivationSet, Constraint, Objective, Saliency, Solver, Term
from secateur.errors import ConstraintError, FormatError, RefusedError, UsageError
from secateur.limits import check_values, near, quoted, read_yaml
from secateur.recipe import defaults, naming
from secateur.recipe.building import build, build_constraint, check_needs
from secateur.recipe.reading import explain, override
from secateur.recipe.sections import Bench, Constrain, Latency, Quantize, Training
from secateur.types import Limit, Site, Stage


class Recipe(BaseModel):
    """A whole recipe. `to_yaml()` writes the resolved form: every default said, every site listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    example_inputs: str | None = None  # a file or an import path, `named_inputs.py`; null: taken from the data
    dynamic_batch: bool | None = None  # null: free where the network permits it
    budget: dict[str, float] = {}
    minimise: str | None = None  # a kind of size, or loss
    constrain: list[Constrain] | None = None  # None: what the budget asks for (defaults.py)
    quantize: list[Quantize] | None = None  # integers for layers and for what they read
    solver: dict[str, Any] = {"name": "gradual", "epochs": 10}
    saliency: dict[str, Any] = {"name": "abs_v_power"}  # docs/design/default-saliency.md
    objective: list[dict[str, Any]] = Field([{"name": "task"}], min_length=1)
    polish_objective: list[dict[str, Any]] = Field([{"name": "task"}], min_length=1)
    training: Training = Training()
    polish_training: dict[str, Any] = {}
    snap_training: dict[str, Any] = {}
    dense: dict[str, Any] | None = None
    baselines: list[Literal["one_shot", "one_shot_raw"]] = ["one_shot", "one_shot_raw"]
    bench: Bench = Bench()
    latency: Latency = Latency()
    seed: int = Field(0, ge=0)

    # ---- reading -----------------------------------------------------------------------------------------------
    @classmethod
    def from_file(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Read a YAML recipe; `overrides` are `a.b=c` strings applied on top."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UsageError(f"recipe {path}: no such file; give the path of a YAML recipe") from None
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"recipe {path}: cannot be read ({e}); give the path of a YAML text file") from None
        return cls.from_text(text, overrides, subject=f"recipe {path}")

    @classmethod
    def from_text(cls, text: str, overrides: Iterable[str] = (), subject: str = "recipe") -> Recipe:
        """Read YAML text (the safe subset: no tags, no code)."""
        try:
            raw = read_yaml(text)
        except ValueError as e:
            raise UsageError(f"{subject}: not valid YAML: {e}") from None
        if raw is None:
            raise UsageError(f"{subject}: is empty; write model, data, budget and constrain, as the README shows")
        if not isinstance(raw, dict):
            raise UsageError(f"{subject}: holds {type(raw).__name__}, a mapping of recipe keys is needed")
        for item in overrides:
            override(raw, item)
        return cls.from_dict(raw, subject)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], subject: str = "recipe") -> Recipe:
        """Check a mapping of recipe keys."""
        if not isinstance(raw, Mapping):
            raise UsageError(f"{subject}: {quoted(raw)}; a mapping of recipe keys is needed")
        try:
            check_values(raw)
            return cls.model_validate(dict(raw))
        except ValidationError as e:
            raise UsageError(_said(e, subject)) from None
        except ValueError as e:
            raise UsageError(f"{subject}: {e}") from None

    @field_validator("budget", mode="before")
    @classmethod
    def _parse_budget(cls, raw: Any) -> dict[str, float]:
        if not isinstance(raw, Mapping):
            raise ValueError(f"a mapping such as {{nbytes: 6KB}} is needed, got {quoted(raw)}")
        return {str(k): kinds.parse(str(k), v) for k, v in raw.items()}

    @field_serializer("budget")
    def _write_budget(self, budget: dict[str, float]) -> dict[str, str]:
        return {kind: kinds.write(kind, value) for kind, value in budget.items()}

    @field_validator("minimise")
    @classmethod
    def _check_minimise(cls, kind: str | None) -> str | None:
        known = [*kinds.meters(), "loss"]
        if kind is not None and kind not in known:
            raise ValueError(f"minimise: {quoted(kind)} is unknown{near(kind, known)}")
        return kind

    @field_validator("constrain", "quantize", "objective", "polish_objective", mode="before")
    @classmethod
    def _as_list(cls, raw: Any) -> Any:
        return [raw] if isinstance(raw, Mapping) else raw

    @field_validator("solver", "saliency", mode="before")
    @classmethod
    def _as_mapping(cls, raw: Any) -> Any:
        return {"name": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _check_methods(self) -> Recipe:
        check_needs("solver", self.solver, self.build_solver().needs - {TRIAL})
        check_needs("saliency", self.saliency, self.build_saliency().needs - {"generator"})
        self.build_objectives()
        self.build_objectives(polish=True)
        for _, entry in self._entries():
            build_constraint(entry.with_)
        self.dense_training()
        if kinds.DROP in self.budget and not self.dense_is_trained:
            raise UsageError(
                f"budget.{kinds.DROP}: solver.from_scratch without `dense:` trains no dense net to compare with; add "
                "dense: {epochs: N}, or limit a size instead"
            )
        self.training_of("polish")
        self.training_of("snap")
        return self

    @classmethod
    def of(
        cls,
        given: Recipe | Mapping[str, Any] | str | Path | None,
        budget: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Recipe:
        """The recipe from any of its forms, with the budget and the seed of a call."""
        if given is None:
            given = {}
        if isinstance(given, Mapping):
            given = cls.from_dict(given)
        elif not isinstance(given, Recipe):
            given = cls.from_file(given)
        changes: dict[str, Any] = {}
        if budget is not None:
            changes["budget"] = dict(budget)
        if seed is not None:
            changes["seed"] = seed
        return given.replace(**changes) if changes else given

    @classmethod
    def of_run(cls, path: Path) -> Recipe:
        """The recipe in a run's recipe.yaml, which also records sites and versions. FormatError: damaged."""
        try:
            raw = read_yaml(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise FormatError(f"{path}: not valid YAML ({e})") from None
        if not isinstance(raw, dict):
            raise FormatError(f"{path}: not a recipe")
        return cls.from_dict({k: v for k, v in raw.items() if k in cls.model_fields})

    def replace(self, **changes: Any) -> Recipe:
        """A new recipe with some keys changed (checked again)."""
        return Recipe.from_dict({**self.model_dump(by_alias=True, exclude_unset=True), **changes})

    # ---- building ----------------------------------------------------------------------------------------------
    _PHASE_KEYS = ("epochs", "polish", "snap")
    _SWITCHES = ("bias_correction", "equalize", "keep_zeros", "from_scratch")

    @property
    def epochs(self) -> float:
        """Total epochs of the solver: approach + polish + snap."""
        return float(self.solver.get("epochs", 10))

    @property
    def polish(self) -> float:
        """Fraction of the epochs spent on masked retraining."""
        return float(self.solver.get("polish", 0.3))

    @property
    def snap(self) -> float:
        """Fraction of the epochs spent on quantised retraining, where a value constraint is present."""
        return float(self.solver.get("snap", 0.2))

    @property
    def bias_correction(self) -> bool:
        """Do biases take over the mean error of rounded values before the snap?"""
        return bool(self.solver.get("bias_correction", False))

    @property
    def equalize(self) -> bool:
        """Do channels get one range in the layers that make and read them before values are rounded?"""
        return bool(self.solver.get("equalize", False))

    @property
    def keep_zeros(self) -> bool:
        """Do constrained weights that are zero when the approach begins stay zero?"""
        return bool(self.solver.get("keep_zeros", False))

    @property
    def from_scratch(self) -> bool:
        """Does the approach begin at the weights that the model comes with, before any dense training?"""
        return bool(self.solver.get("from_scratch", False))

    @property
    def dense_is_trained(self) -> bool:
        """Is there a dense net that answers can be compared with?"""
        return self.dense is not None or not self.from_scratch

    def build_solver(self) -> Solver:
        """The solver with its fields; shares of the epochs and the switches are the training loop's."""
        theirs = (*self._PHASE_KEYS, *self._SWITCHES)
        settings = {k: v for k, v in self.solver.items() if k not in theirs}
        for key in self._SWITCHES:
            if not isinstance(asked := self.solver.get(key, False), bool):
                raise UsageError(f"solver.{key}: {quoted(asked)}; true or false is needed")
        for key in self._PHASE_KEYS:
            value = self.solver.get(key, 1)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or value < 0
                or (key != "epochs" and value > 1)
            ):
                raise UsageError(f"solver.{key}: {quoted(value)}; a number >= 0 is needed (polish and snap: at most 1)")
        if self.polish + self.snap > 1:
            raise UsageError(
                f"solver: polish {self.polish} + snap {self.snap} exceed 1; they are fractions of the epochs"
            )
        return build("solvers", settings, "solver", Solver, theirs)  # type: ignore[type-abstract]

    def build_saliency(self) -> Saliency:
        """The saliency that weights the projections."""
        return build("saliencies", self.saliency, "saliency", Saliency)  # type: ignore[type-abstract]

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that solver and saliency ask for."""
        return self.build_solver().needs | self.build_saliency().needs

    def build_objectives(self, polish: bool = False) -> list[Objective]:
        """The summands of the loss, for the approach or for the polish."""
        chosen = self.polish_objective if polish else self.objective
        key = "polish_objective" if polish else "objective"
        return [build("objectives", o, f"{key}[{i}]", Objective) for i, o in enumerate(chosen)]  # type: ignore[type-abstract]

    @property
    def needs_teacher(self) -> bool:
        """Does an objective of the approach or the polish listen to a teacher?"""
        return any(o.needs_teacher for o in (*self.build_objectives(), *self.build_objectives(polish=True)))

    def dense_training(self) -> tuple[float, Training] | None:
        """Epochs and settings of the dense training, or None when the model comes trained."""
        if self.dense is None:
            return None
        settings = dict(self.dense)
        epochs = settings.pop("epochs", None)
        if not _is_number(epochs) or epochs <= 0:
            raise UsageError(f"dense.epochs: {quoted(epochs)}; a number > 0 is needed: how long to train the dense net")
        return float(epochs), self._merged(settings, "dense")

    def training_of(self, phase: Literal["polish", "snap"]) -> Training:
        """Training settings of the polish or the snap: `training` with that section's changes."""
        key = f"{phase}_training"
        return self._merged(getattr(self, key), key)

    def _merged(self, settings: Mapping[str, Any], subject: str) -> Training:
        merged = {**self.training.model_dump(exclude_unset=True), **settings}
        try:
            return Training.model_validate(merged)
        except ValidationError as e:
            raise UsageError(_said(e, f"recipe: {subject}")) from None

    @property
    def sought(self) -> str:
        """The size that a search makes small where the accuracy drop is the only limit."""
        return kinds.FIRST if self.minimise in (None, "loss") else str(self.minimise)

    def limits(self) -> list[Limit]:
        """The budget as hard limits in base units (bytes, counts, fractions)."""
        return [Limit(k, v) for k, v in self.budget.items()]

    def resolved(self, sites: Sequence[Site], groups: Sequence[Site]) -> tuple[Recipe, str | None]:
        """The recipe with `constrain` written out, and, where it was left out, the sentence that says what was chosen.

        Args:
            sites, groups: the weights and the coupled channels of the net that it is for.
        """
        if self.constrain is not None or any(q.weights for q in self.quantize or ()):
            return self, None
        choice = defaults.chosen(self.budget, self.sought, sites, groups)
        return self.replace(constrain=list(choice.constrain)), choice.note

    def build_terms(self, sites: Sequence[Site], groups: Sequence[Site] = ()) -> tuple[Term, ...]:
        """Resolve `constrain` against the sites found. Later entries override earlier ones on the same site.

        `where: "*"` means all weights; biases and norms only when a pattern other than a bare star names them. A
        constraint whose view is `channels` acts on the coupled groups instead, by the same names (`naming`), and on
        the weights of which nothing can be removed physically: there whole rows become zero in place.

        Raises:
            UsageError: a pattern matches nothing (with the nearest names), a level does not fit, or `quantize` acts on
                a site on which another entry acts already.
        """
        chosen: dict[str, Term] = {}
        solver = self.build_solver()
        by: dict[str, str] = {}
        for subject, entry in self.resolved(sites, groups)[0]._entries():
            asked = build_constraint(entry.with_)
            if isinstance(asked, ActivationSet):
                continue  # `build_activations`
            pool = naming.pool_of(asked.view, sites, groups)
            for site in naming.match(entry.where, entry.exclude, pool, [*sites, *groups, *pool], subject, asked.view):
                _check_alone(by, site, subject)
                chosen[site.name] = _term(site, asked.on(site), entry.level, subject)
                if self.from_scratch and chosen[site.name].constraint.bands(naming.view_shape(site)) is not None:
                    raise UsageError(
                        f"{subject} at {site.name}: permute orders channels by trained weights, and with "
                        "solver.from_scratch there are none yet; leave one of them out"
                    )
                if self.keep_zeros and any(p.stage == Stage.FORM for p, _ in chosen[site.name].constraint.split(None)):
                    raise RefusedError(
                        f"{subject} at {site.name}: solver.keep_zeros holds weights at zero, and "
                        f"{chosen[site.name].constraint.name} stores a weight as factors; leave one of them out"
                    )
                if why := solver.refuses(chosen[site.name]):
                    at = f"{subject} at {site.name} {list(site.shape)}"
                    raise RefusedError(f"{at}: {why}; exclude it or change solver")
        order = {s.name: i for i, s in enumerate([*sites, *groups, *naming.read_together(groups, sites)])}
        return tuple(sorted(chosen.values(), key=lambda t: order[t.site.name]))

    def build_activations(self, sites: Sequence[Site]) -> dict[str, ActivationSet]:
        """Weight's name -> the set in which that layer reads its input; later entries override earlier ones.

        A bare star means convolutions and linear layers.

        Raises:
            UsageError: a pattern matches nothing, names what is no such layer, or `quantize` names one twice.
        """
        chosen: dict[str, ActivationSet] = {}
        by: dict[str, str] = {}
        for subject, entry in self._entries():
            constraint = build_constraint(entry.with_)
            if not isinstance(constraint, ActivationSet):
                continue
            pool = naming.pool_of(constraint.view, sites, ())
            hit = naming.match(entry.where, entry.exclude, pool, sites, subject)
            for site in hit:
                _check_alone(by, site, subject)
                chosen[site.name] = constraint
        return chosen

    def _entries(self) -> list[tuple[str, Constrain]]:
        """What `constrain` and `quantize` say, each with its name for messages."""
        own = [(f"constrain[{i}]", entry) for i, entry in enumerate(self.constrain or ())]
        return own + [(f"quantize[{i}]", e) for i, q in enumerate(self.quantize or ()) for e in q.entries()]

    def to_yaml(self, **more: Any) -> str:
        """The recipe as YAML, defaults written out, `more` appended (resolved sites, versions)."""
        data = self.model_dump(by_alias=True, mode="json")
        return str(yaml.safe_dump({**data, **more}, sort_keys=False, allow_unicode=True, width=120))


def _check_alone(by: dict[str, str], site: Site, subject: str) -> None:
    """Refuse what `subject` says of a site where another entry has spoken; `by` remembers who acts where."""
    before = by.get(site.name, "")
    by[site.name] = subject
    if not before or not subject.startswith("quantize"):
        return
    do = "name a layer in one of them: by where, or by keep_float in the other"
    if before.startswith("constrain"):
        do = (
            "write both sets there, constrain: {with: [topk, {name: uniform, per: row}]}, and leave to quantize what "
            "layers read, {weights: null, activations: 8}"
        )
    raise UsageError(f"{subject}: {before} acts on {site.name} already; {do}")


def _term(site: Site, constraint: Constraint, given: Mapping[str, Any] | None, subject: str) -> Term:
    """A set on a site, its level parsed where the recipe gives one."""
    shape = naming.view_shape(site)
    if why := constraint.unfit(site):
        raise UsageError(f"{subject} at {site.name} {list(site.shape)}: {why}; exclude it")
    try:
        constraint.levels(shape)  # does the set fit the shape at all?
    except ConstraintError as e:
        raise ConstraintError(f"{subject} at {site.name} {list(site.shape)}: {e}") from None
    if given is None:
        return Term(site, constraint)
    try:
        return Term(site, constraint, constraint.parse_level(given, shape), True)
    except (ConstraintError, TypeError, ValueError, KeyError) as e:
        raise UsageError(f"{subject}.level at {site.name} {list(site.shape)}: {e}") from None


def _said(error: ValidationError, subject: str) -> str:
    return explain(
        error,
        subject,
        {
            "": Recipe,
            "constrain": Constrain,
            "quantize": Quantize,
            "training": Training,
            "bench": Bench,
            "latency": Latency,
        },
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
