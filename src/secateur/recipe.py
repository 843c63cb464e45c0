"""The recipe: what a YAML file, `--set a.b=c` and the Python call say, checked before any work starts.

One pydantic model per section; unknown keys are refused with the nearest known one. `Recipe.build_terms` resolves
`constrain` against the sites that were found, so that the resolved recipe lists every site.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from secateur import catalog, defaults, naming, schedules
from secateur.contracts import Constraint, Objective, Saliency, Solver
from secateur.errors import ConstraintError, UsageError
from secateur.limits import QUOTED, check_values, quoted, read_yaml
from secateur.types import Limit, Site, Term

T = TypeVar("T")
LIMITS = ("nbytes", "nnz", "macs", "accuracy_drop")
_BYTES = {"B": 1, "KB": 1000, "MB": 10**6, "GB": 10**9, "KIB": 1024, "MIB": 2**20, "GIB": 2**30}
_COUNTS = {"": 1, "K": 1000, "M": 10**6, "G": 10**9}


Beta = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Constrain(_Section):
    """One entry of `constrain`: which sites, which set (a list = joint set), which level."""

    where: str | list[str] = "*"
    exclude: str | list[str] | None = None
    with_: str | dict[str, Any] | list[str | dict[str, Any]] = Field("topk", alias="with")
    level: dict[str, Any] | None = None


class Training(_Section):
    """How weights are trained; the same keys serve the dense net, the approach, the polish and the snap."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(128, ge=1)
    warmup_steps: int = Field(50, ge=0)
    schedule: str = "cosine"
    average: float = Field(0.0, ge=0, lt=1)
    augment: str | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    checkpoint_seconds: float = Field(30.0, ge=0)

    @field_validator("schedule")
    @classmethod
    def _is_known(cls, name: str) -> str:
        schedules.get(name)
        return name


class Bench(_Section):
    """Which runtimes the report times the nets in, and for how long (seconds per net)."""

    against: list[Literal["onnxruntime", "openvino", "torch"]] = ["onnxruntime", "torch"]
    seconds: float = Field(2.0, gt=0)
    threads: int = Field(1, ge=1, le=1024)


class Recipe(BaseModel):
    """A whole recipe. `to_yaml()` writes the resolved form: every default said, every site listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    example_inputs: str | None = None  # a file or an import path, `named_inputs.py`; null: taken from the data
    dynamic_batch: bool | None = None  # null: free where the network permits it
    budget: dict[str, float] = {}
    minimise: Literal["nbytes", "nnz", "macs", "loss"] | None = None
    constrain: list[Constrain] | None = None  # None: what the budget asks for (defaults.py)
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
            _override(raw, item)
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
            raise UsageError(_explain(e, subject)) from None
        except ValueError as e:
            raise UsageError(f"{subject}: {e}") from None

    @field_validator("budget", mode="before")
    @classmethod
    def _parse_budget(cls, raw: Any) -> dict[str, float]:
        if not isinstance(raw, Mapping):
            raise ValueError(f"a mapping such as {{nbytes: 6KB}} is needed, got {quoted(raw)}")
        return {str(k): parse_limit(str(k), v) for k, v in raw.items()}

    @field_serializer("budget")
    def _write_budget(self, budget: dict[str, float]) -> dict[str, str]:
        """With the units that reading needs back."""
        units = {"nbytes": ("B", 1), "accuracy_drop": ("pt", 100)}
        written = {}
        for kind, value in budget.items():
            unit, scale = units.get(kind, ("", 1))
            written[kind] = f"{round(value * scale, 9):.12g}{unit}"
        return written

    @field_validator("constrain", "objective", "polish_objective", mode="before")
    @classmethod
    def _as_list(cls, raw: Any) -> Any:
        return [raw] if isinstance(raw, Mapping) else raw

    @field_validator("solver", "saliency", mode="before")
    @classmethod
    def _as_mapping(cls, raw: Any) -> Any:
        return {"name": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _check_methods(self) -> Recipe:
        self.build_solver()
        self.build_saliency()
        self.build_objectives()
        self.build_objectives(polish=True)
        for entry in self.constrain or ():
            build_constraint(entry.with_)
        self.dense_training()
        self.training_of("polish")
        self.training_of("snap")
        return self

    def replace(self, **changes: Any) -> Recipe:
        """A new recipe with some keys changed (checked again)."""
        return Recipe.from_dict({**self.model_dump(by_alias=True, exclude_unset=True), **changes})

    # ---- building ----------------------------------------------------------------------------------------------
    _PHASE_KEYS = ("epochs", "polish", "snap")

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

    def build_solver(self) -> Solver:
        """The solver with its fields; the phase keys (epochs, polish, snap) are the training loop's."""
        settings = {k: v for k, v in self.solver.items() if k not in self._PHASE_KEYS}
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
        return build("solvers", settings, "solver", Solver, self._PHASE_KEYS)  # type: ignore[type-abstract]

    def build_saliency(self) -> Saliency:
        """The saliency that weights the projections."""
        return build("saliencies", self.saliency, "saliency", Saliency)  # type: ignore[type-abstract]

    def build_objectives(self, polish: bool = False) -> list[Objective]:
        """The summands of the loss, for the approach or for the polish."""
        chosen = self.polish_objective if polish else self.objective
        key = "polish_objective" if polish else "objective"
        return [build("objectives", o, f"{key}[{i}]", Objective) for i, o in enumerate(chosen)]  # type: ignore[type-abstract]

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
            raise UsageError(_explain(e, f"recipe: {subject}")) from None

    def limits(self) -> list[Limit]:
        """The budget as hard limits in base units (bytes, counts, fractions)."""
        return [Limit(k, v) for k, v in self.budget.items()]

    def resolved(self, sites: Sequence[Site], groups: Sequence[Site]) -> tuple[Recipe, str | None]:
        """The recipe with `constrain` written out, and, where it was left out, the sentence that says what was chosen.

        Args:
            sites, groups: the weights and the coupled channels of the net that it is for.
        """
        if self.constrain is not None:
            return self, None
        choice = defaults.chosen(self.budget, self.minimise, sites, groups)
        return self.replace(constrain=list(choice.constrain)), choice.note

    def build_terms(self, sites: Sequence[Site], groups: Sequence[Site] = ()) -> tuple[Term, ...]:
        """Resolve `constrain` against the sites found. Later entries override earlier ones on the same site.

        `where: "*"` means all weights; biases and norms only when a pattern other than a bare star names them. A
        constraint whose view is `channels` acts on the coupled groups instead, by the same names (`naming`), and on
        the weights of which nothing can be removed physically: there whole rows become zero in place.

        Raises:
            UsageError: a pattern matches nothing (with the nearest names), or a level does not fit.
        """
        chosen: dict[str, Term] = {}
        for i, entry in enumerate(self.resolved(sites, groups)[0].constrain or ()):
            constraint = build_constraint(entry.with_)
            pool = naming.pool_of(constraint.view, sites, groups)
            for site in naming.match(entry.where, entry.exclude, pool, [*sites, *groups], f"constrain[{i}]"):
                level, given = None, entry.level is not None
                try:
                    constraint.levels(naming.view_shape(site))  # does the set fit the shape at all?
                except ConstraintError as e:
                    raise ConstraintError(f"constrain[{i}] at {site.name} {list(site.shape)}: {e}") from None
                if entry.level is not None:
                    try:
                        level = constraint.parse_level(entry.level, naming.view_shape(site))
                    except (ConstraintError, TypeError, ValueError, KeyError) as e:
                        raise UsageError(f"constrain[{i}].level at {site.name} {list(site.shape)}: {e}") from None
                chosen[site.name] = Term(site, constraint, level, given)
        order = {s.name: i for i, s in enumerate([*sites, *groups])}
        return tuple(sorted(chosen.values(), key=lambda t: order[t.site.name]))

    def to_yaml(self, **more: Any) -> str:
        """The recipe as YAML, defaults written out, `more` appended (resolved sites, versions)."""
        data = self.model_dump(by_alias=True, mode="json")
        return str(yaml.safe_dump({**data, **more}, sort_keys=False, allow_unicode=True, width=120))


def build(room: str, settings: Mapping[str, Any], subject: str, kind: type[T], also: Sequence[str] = ()) -> T:
    """An instance of a room's method from `{name: ..., field: ...}`; unknown fields name the nearest known one.

    `also` are keys that somebody else has taken out of `settings`, for that message.
    """
    options = dict(settings)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"{subject}: needs `name`, one of {', '.join(catalog.names(room))}")
    cls = catalog.load(room, name)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in options:
        if key not in known:
            raise UsageError(f"{subject}: {name} has no option {quoted(key)}{_near(key, [*known, *also])}")
    hints = get_type_hints(cls)
    for key, value in options.items():
        if not _is_a(value, hints[key]):
            wanted = str(known[key].type).replace(" | None", " or null")
            raise UsageError(f"{subject}.{key}: {quoted(value)}; {name} needs {wanted} there")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        made = cls(**values)
    except (TypeError, ValueError) as e:
        raise UsageError(f"{subject}: {name}: {e}") from None
    if not isinstance(made, kind):
        raise TypeError(f"{cls.__name__} is not a {kind.__name__}")
    return made


def build_constraint(given: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> Constraint:
    """The constraint of `with:`: a name, a mapping, or a list of them (= joint set)."""
    if isinstance(given, str):
        given = {"name": given}
    if isinstance(given, Mapping):
        return build("constraints", given, "constrain.with", Constraint)  # type: ignore[type-abstract]
    parts = tuple(build_constraint(g) for g in given)
    if not parts:
        raise UsageError("constrain.with: an empty list; name at least one constraint")
    if len(parts) == 1:
        return parts[0]
    try:
        return catalog.load("constraints", "both")(parts=parts)  # type: ignore[no-any-return]
    except (TypeError, ValueError, ConstraintError) as e:
        raise UsageError(f"constrain.with: {e}") from None


def parse_limit(kind: str, value: Any) -> float:
    """A budget value in base units: `6KB` -> 6000, `0.1pt` -> 0.001, `1.5K` -> 1500. A number of bytes needs no unit.

    A fraction of a byte is dropped, which changes nothing: sizes of files are whole.

    >>> parse_limit("nbytes", "6KiB"), parse_limit("accuracy_drop", "0.1pt"), parse_limit("nnz", "1.75K")
    (6144.0, 0.001, 1750.0)
    >>> parse_limit("nbytes", 637_056 / 15)
    42470.0
    """
    if kind not in LIMITS:
        raise ValueError(f"budget key {quoted(kind)} is unknown{_near(kind, LIMITS)}")
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*", str(value))
    if not match or isinstance(value, bool):
        raise ValueError(f"budget.{kind}: {quoted(value)} is not a number with a unit")
    try:
        number, unit = float(match[1]), match[2]
    except ValueError:  # 1.2.3
        raise ValueError(f"budget.{kind}: {quoted(value)} is not a number with a unit") from None
    if kind == "nbytes":
        if unit.upper() not in _BYTES and isinstance(value, str):
            raise ValueError(
                f"budget.nbytes: {quoted(value)} needs a unit, one of B, KB, MB, GB (1000) or KiB, MiB, GiB (1024); "
                "a plain number is bytes"
            )
        number *= _BYTES.get(unit.upper(), 1)
        number = float(math.floor(round(number, 6))) if math.isfinite(number) else number
    elif kind == "accuracy_drop":
        if unit not in ("pt", "%"):
            raise ValueError(f"budget.accuracy_drop: {quoted(value)} needs the unit pt (percentage points), as 0.1pt")
        number /= 100
    elif unit.upper() not in _COUNTS:
        raise ValueError(f"budget.{kind}: {quoted(value)}; a count is needed, optionally with K, M or G")
    else:
        number *= _COUNTS[unit.upper()]
    if not math.isfinite(number) or (number == 0 and kind != "accuracy_drop"):
        raise ValueError(f"budget.{kind}: {quoted(value)}; a positive value is needed")
    return number


def _override(raw: dict[str, Any], item: str) -> None:
    key, eq, value = item.partition("=")
    if not eq or not key:
        raise UsageError(f"--set {quoted(item)}: give key=value, as --set solver.epochs=5")
    at: Any = raw
    *path, last = key.split(".")
    for part in path:
        if isinstance(at, list):
            at = _element(at, part, item)
        else:
            if not isinstance(at.get(part), dict | list):
                at[part] = {}
            at = at[part]
    try:
        parsed = read_yaml(value)
    except ValueError as e:
        raise UsageError(f"--set {quoted(item)}: the value is not valid YAML: {e}") from None
    if isinstance(at, list):
        _element(at, last, item)
        at[int(last)] = parsed
    else:
        at[last] = parsed


def _element(items: list[Any], part: str, item: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise UsageError(f"--set {quoted(item)}: {quoted(part)} is not an index below {len(items)}")
    return items[int(part)]


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a recipe's value is of the plain type that an option declares; other types check for themselves."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not set(options) <= {int, float, str, bool, NoneType}:
        return not isinstance(value, Mapping)
    if isinstance(value, bool):
        return bool in options
    if isinstance(value, int):
        return int in options or float in options
    return type(value) in options


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = get_close_matches(key[:QUOTED], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {quoted(near[0])}?"
    return f"; known: {', '.join(known[:20])}" if known else "; it has none"


def _explain(error: ValidationError, subject: str) -> str:
    lines = []
    for e in error.errors():
        where = ".".join(str(p)[:QUOTED] for p in e["loc"] if not str(p).startswith(("function-", "list[", "dict[")))
        if e["type"] == "extra_forbidden":
            sections: dict[str, type[BaseModel]] = {"constrain": Constrain, "training": Training, "bench": Bench}
            section = sections.get(str(e["loc"][0]), Recipe) if len(e["loc"]) > 1 else Recipe
            known = [f.alias or n for n, f in section.model_fields.items()]
            lines.append(f"unknown key {quoted(where)}{_near(str(e['loc'][-1]), known)}")
        else:
            message = e["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where and not message.startswith(where) else message)
    return f"{subject}: " + "; ".join(dict.fromkeys(lines))
