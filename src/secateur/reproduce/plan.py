"""A study file, read and checked as a whole before anything runs: one clear error, or the cells that it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from secateur.errors import ConstraintError, UsageError
from secateur.limits import check_values, quoted, read_yaml
from secateur.recipe import Recipe
from secateur.reproduce.grid import Cell, axes, expand, filled
from secateur.reproduce.kinds import KINDS, Kind

Json = dict[str, Any]
FIGURES = ("measure", "nbytes", "nnz")  # what a claim may be about


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Seen(_Section):
    """What one seed of an earlier study gave."""

    test: float
    valid: float
    nnz: int = Field(ge=0)
    nbytes: int = Field(ge=0)


class Recorded(_Section):
    """A net that another study made, by its figures: where they stand, and each seed."""

    source: str
    seeds: dict[int, Seen] = Field(min_length=1)


class Part(_Section):
    """One net, or one for each point of the grid: trained from scratch, compressed from another one, or recorded."""

    title: str
    model: str | None = None
    epochs: Any = None
    training: dict[str, Any] | None = None
    from_: str | None = Field(None, alias="from")
    recipe: dict[str, Any] | None = None
    teacher: str | None = None
    recorded: Recorded | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Part:
        given = [k for k, v in (("model", self.model), ("from", self.from_), ("recorded", self.recorded)) if v]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} given; needs one of model, from, recorded")
        wanted = {"model": ("epochs", "training"), "from": ("recipe",), "recorded": ()}[given[0]]
        if self.teacher is not None and self.from_ is None:
            raise ValueError("teacher: only a net that starts from another one, with a recipe, has a teacher")
        for key in ("epochs", "training", "recipe"):
            if (getattr(self, key) is not None) != (key in wanted):
                raise ValueError(
                    f"{key} {'is missing beside' if key in wanted else 'does not belong beside'} {given[0]}"
                )
        return self


class Range(_Section):
    """What was expected before the run."""

    low: float
    high: float

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class Claim(_Section):
    """`part` gains so much over `against`, as somebody says; `verdict` has the rules.

    `part` and `against` are a part, a cell or a pattern of cells (validation chooses among them). `figure` measure: how
    much better, in the measure; nbytes and nnz: how many times fewer. `claimed` and `margin` are in the same unit.
    """

    says: str
    part: str
    against: str
    figure: Literal["measure", "nbytes", "nnz"] = "measure"
    claimed: float
    margin: float = Field(0.0, ge=0)
    expect: Range
    entry: int | None = None
    paper: str = ""


class Goal(_Section):
    """A size that a part must not exceed with any seed, and a measure that it must reach on average."""

    part: str
    nnz: int | None = None
    nbytes: int | None = None
    measure: float


class Speed(_Section):
    """Which written nets are timed beside the dense one."""

    part: str
    dense: str
    control: str
    seconds: float = Field(2.0, gt=0)


class Latency(_Section):
    """Which written nets are timed beside each other, in the engine and in other runtimes, batch 1 and one thread."""

    nets: list[str] = Field(min_length=1)
    against: list[Literal["onnxruntime", "openvino"]] = ["onnxruntime", "openvino"]
    seconds: float = Field(0.5, gt=0)


class Frontier(_Section):
    """Accuracy against latency: for each net of `control`, the fastest of `ours` that is not worse by `margin`."""

    ours: list[str] = Field(min_length=1)
    control: list[str] = Field(min_length=1)
    margin: float = Field(0.005, ge=0)


class Contest(_Section):
    """All parts along an axis beside each other, each with the setting that validation chose; costs are measured.

    A cell that a method refuses, whose training diverges or whose budget cannot be met is a finding and no error.
    """

    over: str


class Bar(_Section):
    """A compressed net beside its dense one: bytes, what was lost, what the engine ran; `bar` has the rules.

    `part`, `dense` and each of `beside` are one cell. Every compressed net of such a study is verified from its files.

    Attributes:
        points: what may be lost of a fraction. share: by how much of itself a loss may grow.
        nbytes: the share of the dense net's bytes, 4 for every weight and bias, that must do.
        why: where the bar is missed and somebody knows why.
    """

    part: str
    dense: str
    beside: list[str] = []
    points: float = Field(0.015, ge=0)
    share: float = Field(0.05, ge=0)
    nbytes: float = Field(0.1, gt=0, le=1)
    why: str = ""


class Plan(_Section):
    """A whole study for one task. `values` are put in where a part says `$name`; `define` is a place for anchors."""

    about: str
    task: Literal[tuple(KINDS)] = "classification"  # type: ignore[valid-type]
    data: str
    seeds: list[int] = Field(min_length=1)
    n_weights: int = Field(gt=0)
    grid: dict[str, Any] = {}
    values: dict[str, str | int | float] = {}
    parts: dict[str, Part] = Field(min_length=1)
    goals: list[Goal] = []
    claims: list[Claim] = []
    speed: Speed | None = None
    latency: Latency | None = None
    frontier: Frontier | None = None
    contest: Contest | None = None
    bar: Bar | None = None
    define: dict[str, Any] = {}

    @property
    def kind(self) -> Kind:
        """The task's kind."""
        return KINDS[self.task]


class Study(BaseModel):
    """A checked plan with its cells."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    task: str | None
    plan: Plan
    cells: dict[str, Cell]

    def matching(self, pattern: str) -> list[Cell]:
        """The cells of this name or part, or that a shell pattern matches."""
        return [c for c in self.cells.values() if pattern in (c.name, c.part) or fnmatchcase(c.name, pattern)]


def read(path: Path, task: str | None = None) -> Study:
    """The study of a file, for one of its tasks.

    A file has one `task`, or several under `tasks`: name -> the keys that are this task's own; mappings among them are
    joined with the study's key by key. Everything is checked: keys, grid, recipes, trainings, names in claims.

    Raises:
        UsageError: one message for the whole file; no such task.
    """
    return checked(path.stem, _content(path), task)


def checked(name: str, raw: Mapping[str, Any], task: str | None = None) -> Study:
    """A study file's content as a study; raises as `read`."""
    subject = f"study {name}"
    merged = _for_task(dict(raw), task, subject)
    try:
        plan = Plan.model_validate(merged)
    except ValidationError as e:
        raise UsageError(f"{subject}: {_explained(e)}") from None
    parts = {k: v.model_dump(by_alias=True, exclude_none=True) for k, v in plan.parts.items()}
    cells = expand(filled(parts, plan.values), axes(plan.grid, subject), subject)
    study = Study(name=name, task=task, plan=plan, cells=cells)
    for cell in cells.values():
        _check_cell(cell, f"{subject}: {cell.name}")
    named = [g.part for g in plan.goals] + [x for c in plan.claims for x in (c.part, c.against)]
    named += [plan.speed.part, plan.speed.dense, plan.speed.control] if plan.speed else []
    named += plan.latency.nets if plan.latency else []
    named += [*plan.frontier.ours, *plan.frontier.control] if plan.frontier else []
    if plan.contest is not None and plan.contest.over not in plan.grid:
        raise UsageError(
            f"{subject}: contest.over: {quoted(plan.contest.over)} is no axis; known: {', '.join(plan.grid) or 'none'}"
        )
    single = [plan.bar.part, plan.bar.dense, *plan.bar.beside] if plan.bar else []
    named += single
    for pattern in named:
        if not study.matching(pattern):
            raise UsageError(f"{subject}: {quoted(pattern)} names no part or cell; parts: {', '.join(parts)}")
    for pattern in single:
        if len(study.matching(pattern)) > 1:
            raise UsageError(f"{subject}: bar: {quoted(pattern)} names several cells; name one of them")
    return study


def tasks_of(path: Path) -> list[str]:
    """Names of the tasks that a file can be run for; empty where there is only one."""
    return _tasks(_content(path))


def about(path: Path) -> str:
    """The one line of a study file."""
    return str(_content(path).get("about", ""))


def _content(path: Path) -> Json:
    subject = f"study {path.stem}"
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
        check_values(raw)
    except (OSError, ValueError) as e:
        raise UsageError(f"{subject}: cannot be read: {e}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{subject}: holds {quoted(raw)}; a mapping of about, task, data, seeds, parts ... is needed")
    return raw


def _tasks(raw: Mapping[str, Any]) -> list[str]:
    found = raw.get("tasks")
    return list(map(str, found)) if isinstance(found, Mapping) else []


def _for_task(raw: Json, task: str | None, subject: str) -> Json:
    known = _tasks(raw)
    if "tasks" in raw and not known:
        raise UsageError(
            f"{subject}: tasks: {quoted(raw['tasks'])}; a mapping of name to the keys of that task is needed"
        )
    if task is None and known:
        raise UsageError(f"{subject}: has the tasks {', '.join(known)}; choose one with --task")
    if task is not None and task not in known:
        raise UsageError(f"{subject}: has no task {task!r}; known: {', '.join(known) or 'none, leave --task out'}")
    own = raw.pop("tasks", {}).get(task, {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{subject}: tasks.{task}: {quoted(own)}; a mapping of keys is needed")
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(raw.get(key), Mapping)
        raw[key] = {**raw[key], **value} if both else value
    return raw


def _check_cell(cell: Cell, subject: str) -> None:
    """A cell's training or recipe, as the run will read it."""
    plan = cell.plan
    asked = plan.get("recipe", {})
    if "model" in plan:
        asked = {"dense": {"epochs": plan["epochs"], **plan["training"]}}
    try:
        Recipe.from_dict(asked, subject)
    except (UsageError, ConstraintError) as e:
        raise UsageError(str(e) if str(e).startswith(subject) else f"{subject}: {e}") from None


def _explained(error: ValidationError) -> str:
    """The first thing that is wrong, where it stands, and the nearest known key."""
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"] if p != "from_")
    if first["type"] == "extra_forbidden":
        known = _keys(first["loc"][:-1])
        near = get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {quoted(where)}; " + (
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + ("" if first["type"] == "missing" else f"; got {quoted(first['input'])}")


def _keys(place: Iterable[str | int]) -> list[str]:
    """The keys of the section at this place."""
    sections: dict[str, type[BaseModel]] = {
        **{"parts": Part, "claims": Claim, "goals": Goal, "speed": Speed, "expect": Range},
        **{"latency": Latency, "frontier": Frontier, "contest": Contest, "bar": Bar},
        **{"recorded": Recorded, "seeds": Seen},
    }
    section = next((sections[str(p)] for p in reversed(list(place)) if str(p) in sections), Plan)
    return [f.alias or n for n, f in section.model_fields.items()]
