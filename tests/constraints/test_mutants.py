"""A deliberate fault in any projection makes the conformance suite fail.

Each mutant is the real class with one thing wrong: an off-by-one count, an ignored importance, a percentile threshold,
a local instead of the global optimum, a change in place, ... The suite must notice every one of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from test_conformance import laws
from torch import Tensor

from secateur import catalog
from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, Support
from secateur.constraints.all_of import AllOf
from secateur.constraints.blocks import Blocks
from secateur.constraints.codebook import Codebook
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Constraint
from secateur.errors import ConstraintError
from secateur.testing.cases import cases
from secateur.testing.constraints import check_constraint
from secateur.testing.laws import nested
from secateur.types import Level, Packing

Project = Callable[..., Tensor]


def mutant(good: Constraint, method: str, fault: Callable[..., Any]) -> Constraint:
    """`good` with `method` replaced by fault(original bound method, self, *arguments)."""
    cls = type(good)

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        return fault(lambda *a, **k: getattr(cls, method)(self, *a, **k), self, *args, **kwargs)

    broken_cls = type(cls.__name__, (cls,), {method: broken})
    options = {f.name: getattr(good, f.name) for f in fields(good)}
    return broken_cls(**options)


# Faults that make sense for every set -----------------------------------------------------------------------------
def ignores_importance(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    lv.checked("", w, h)
    return project(w, level, None)


def unsquared_importance(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    lv.checked("", w, h)
    return project(w, level, None if h is None else h * h)


def in_place(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    w.copy_(z)
    return z


def returns_its_input(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    return w if torch.equal(z, w) else z


def single_precision(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    return project(w, level, h).float()


def accepts_nan(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    if level is None or self.contains(w, level):
        return w.clone()
    return project(w.nan_to_num(0.0, 0.0, 0.0), level, h)


def random_each_time(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    lv.checked("", w, h)
    return project(w + 1e-3 * torch.randn_like(w), level, h)


def everything_to_zero(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    return z if level is None or self.contains(w, level) else torch.zeros_like(z)


def flat_curve(distance: Any, self: Any, w: Tensor, h: Tensor | None = None) -> Any:
    true = distance(w, h)
    return lambda level: 1.01 * true(level)


def frees_everything(freeze: Any, self: Any, w: Tensor, level: Any) -> Any:
    return Free()


def freezes_the_first_value(freeze: Any, self: Any, w: Tensor, level: Any) -> Any:
    mask = torch.zeros_like(w, dtype=torch.bool)
    mask.view(-1)[0] = True
    return Support(mask)


def promises_too_little(packing: Any, self: Any, shape: Any, level: Any) -> Packing:
    p = packing(shape, level)
    return replace(p, nnz=p.nnz // 2, n_values=0)


def prices_too_dear(packing: Any, self: Any, shape: Any, level: Any) -> Packing:
    p = packing(shape, level)
    return replace(p, bits=32.0, expected_bits=32.0, n_values=p.nnz)


def never_a_member(contains: Any, self: Any, w: Tensor, level: Any) -> bool:
    return False


def always_a_member(contains: Any, self: Any, w: Tensor, level: Any) -> bool:
    return True


def accepts_one_negative_importance(
    project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None
) -> Tensor:
    return project(w, level, None if h is None or h.shape != w.shape or (h < 0).all() else h.clamp(min=0))


GENERAL = [
    ("project", f)
    for f in (
        ignores_importance,
        in_place,
        returns_its_input,
        single_precision,
        accepts_nan,
        random_each_time,
        everything_to_zero,
        accepts_one_negative_importance,
    )
] + [
    ("distance", flat_curve),
    ("freeze", frees_everything),
    ("freeze", freezes_the_first_value),
    ("packing", promises_too_little),
    ("packing", prices_too_dear),
    ("contains", never_a_member),
    ("contains", always_a_member),
]


# Support sets -----------------------------------------------------------------------------------------------------
def one_less(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    return project(w, max(level - 1, 0) if isinstance(level, int) and level < 100 else level, h)


def one_more(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    menu = self.levels(w.shape)
    return project(w, level + 1 if level in menu and level + 1 in menu else level, h)


def higher_index_stays(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    if w.dim() != 2:
        return project(w, level, h)
    return project(w.flip(0, 1), level, None if h is None else h.flip(0, 1)).flip(0, 1)


def percentile(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """Everything >= the k-th score stays: ties survive."""
    z = project(w, level, h)
    if level in (None, 0):
        return z
    score = lv.scores(w, h)
    kept = score[z != 0]
    return w.clone() if kept.numel() == 0 else w.masked_fill(score < kept.min(), 0.0)


def smallest_stay(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    kept = project(1.0 / (w.abs() + 0.1), level, h) != 0
    return w.masked_fill(~kept, 0.0)


def h_times_abs(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """h |w| in place of h w^2."""
    kept = project(w, level, None if h is None else h * h) != 0
    return w.masked_fill(~kept, 0.0)


def row_l1(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """Sum of |w| in place of the sum of squares."""
    z = project(w, level, h)
    if level is None:
        return z
    mask = lv.keep_largest(lv.scores(w, h).sum(1), level)
    return w.masked_fill(~mask[:, None], 0.0)


def groups_along_rows(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    if w.dim() != 2 or w.shape[0] == 1 or w.numel() % self.m:
        return project(w, level, h)
    turned = w.t().reshape(-1, self.m)
    g = None if h is None else h.t().reshape(-1, self.m)
    return project(turned, level, g).reshape(w.shape[1], w.shape[0]).t().contiguous()


def one_pool(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """The right total, but not per group."""
    z = project(w, level, h)
    return z if level is None else TopK().project(w, level * w.numel() // self.m, h)


# Value sets -------------------------------------------------------------------------------------------------------
def rough_scale(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """scale = max |w| / top."""
    project(w, level, h)
    if level is None or self.contains(w, level):
        return w.clone()
    scale = w.double().abs().max() / self.top(level)
    return (scale * (w.double() / scale).round()).to(w.dtype)


def narrow_window(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """Search within 10 % of max |w| / top, as released code does."""
    project(w, level, h)
    if level is None or self.contains(w, level):
        return w.clone()
    g = torch.ones_like(w, dtype=torch.float64) if h is None else h.double()
    found = []
    for f in np.linspace(0.9, 1.1, 41):
        scale = f * w.double().abs().max() / self.top(level)
        q = (w.double() / scale).round().clamp(-self.top(level), self.top(level))
        scale = (g * w.double() * q).sum() / (g * q * q).sum().clamp(min=1e-30)
        z = (scale.to(w.dtype).double() * q).to(w.dtype)
        found.append((float((g * (w.double() - z.double()) ** 2).sum()), z))
    return min(found, key=lambda x: x[0])[1]


def rounds_down(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """The right scale, codes truncated."""
    z = project(w, level, h)
    if level is None or self.contains(w, level):
        return z
    q = self.freeze(z, level).codes
    at = q.abs().argmax()
    scale = z.flatten()[at] / q.flatten()[at] if int(q.abs().max()) else w.new_tensor(1.0)
    codes = (w / scale).trunc().clamp(-self.top(level), self.top(level))
    return (scale.double() * codes.double()).to(w.dtype)


def lopsided(top: Any, self: Any, level: Any) -> int:
    """-2^(b-1) .. 2^(b-1): one level too many."""
    return int(top(level)) + 1


def lloyd(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """Lloyd's iteration from evenly spread ranks instead of the optimum."""
    project(w, level, h)
    if level is None or self.contains(w, level):
        return w.clone()
    x = w.double().flatten()
    g = torch.ones_like(x) if h is None else h.double().flatten()
    centres = x.sort().values[torch.linspace(0, x.numel() - 1, level).long()].unique()
    for _ in range(50):
        label = (x[:, None] - centres).abs().argmin(1)
        mass = torch.zeros_like(centres).index_add_(0, label, g)
        total = torch.zeros_like(centres).index_add_(0, label, g * x)
        centres = torch.where(mass > 0, total / mass.clamp(min=1e-30), centres)
    label = (x[:, None] - centres).abs().argmin(1)
    return centres[label].view_as(w).to(w.dtype)


def evenly_spaced(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    project(w, level, h)
    if level is None or self.contains(w, level):
        return w.clone()
    centres = torch.linspace(float(w.min()), float(w.max()), level, dtype=w.dtype)
    return centres[(w.flatten()[:, None] - centres).abs().argmin(1)].view_as(w)


def one_entry_more(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    return project(w, level + 1 if isinstance(level, int) and level + 1 in self.levels(w.shape) else level, h)


def plain_means(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    """Weighted assignment, unweighted centres."""
    z = project(w, level, h)
    if level is None or self.contains(w, level):
        return z
    return self.freeze(z, level).project(w)


# Joint sets -------------------------------------------------------------------------------------------------------
def prune_then_quantise(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    if level is None or self.contains(w, level):
        return z
    (support, where), (values, what) = self.split(level)
    return values.project(support.project(w, where, h), what, h)


def quantise_then_prune(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    if level is None or self.contains(w, level):
        return z
    (support, where), (values, what) = self.split(level)
    return support.project(values.project(w, what, h), where, h)


def values_see_no_importance(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    if level is None or self.contains(w, level):
        return z
    (_, _), (values, what) = self.split(level)
    return values.project(w, what, (z != 0).double()).masked_fill(z == 0, 0.0)


def wakes_zeros(project: Project, self: Any, w: Tensor, level: Any, h: Tensor | None = None) -> Tensor:
    z = project(w, level, h)
    if level is None or not bool((z != 0).any()):
        return z
    woken = z.clone()
    woken[w == 0] = z[z != 0][0]
    return woken if self.contains(woken, level) else z


# Blocks -----------------------------------------------------------------------------------------------------------
def block_l1(sums: Any, self: Any, gains: Tensor) -> Tensor:
    return sums(gains.sqrt())


def block_mean_of_kept(sums: Any, self: Any, gains: Tensor) -> Tensor:
    return sums(gains) / sums((gains != 0).double()).clamp(min=1)


@pytest.mark.parametrize("fault", [block_l1, block_mean_of_kept])
def test_a_wrong_norm_of_a_block_is_noticed(fault: Callable[..., Any]) -> None:
    """By what the set contains too: somebody else's set brings no oracle."""
    with pytest.raises(AssertionError, match=r"brute force|lies at|distance\(\) says"):
        check_constraint(mutant(Blocks(rows=2), "_sums", fault))


@dataclass(frozen=True)
class Pairs(Blocks):
    """Blocks of 1 x 2 that leave nothing over."""

    rows: int = 1
    cols: int = 2

    def levels(self, shape: tuple[int, int]) -> Any:
        if shape[1] % 2:
            raise ConstraintError(f"pairs: {shape} has an odd number of columns")
        return super().levels(shape)

    def after_cut(self, shape: Any, kept_rows: Any, kept_cols: Any, level: Level) -> Any:
        return None if len(kept_cols) % 2 else super().after_cut(shape, kept_rows, kept_cols, level)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [(((1, 7), (2, 4)), "does not fit"), (((2, 4),), "has 4 units, 5 are needed"), ((), "gives no shapes")],
)
def test_a_set_whose_shapes_hold_too_few_units_is_refused(shapes: Any, said: str) -> None:
    few = type("Few", (Pairs,), {"trials": property(lambda self: shapes)})()
    with pytest.raises(AssertionError, match=said):
        check_constraint(few)


# What sets say of themselves --------------------------------------------------------------------------------------
def shifts_groups(after_cut: Any, self: Any, shape: Any, rows: Any, cols: Any, level: Any) -> Any:
    return self, level


def keeps_a_level_off_the_menu(after_cut: Any, self: Any, shape: Any, rows: Any, cols: Any, level: Any) -> Any:
    found = after_cut(shape, rows, cols, level)
    return found if found is None else (found[0], level)


def masks_everything(mask: Any, self: Any, w: Tensor, level: Any) -> Tensor:
    return torch.ones_like(w, dtype=torch.bool)


def masks_too_little(mask: Any, self: Any, w: Tensor, level: Any) -> Tensor:
    return mask(w, level) & (w > 0)


def one_level_looser(tightest: Any, self: Any, w: Tensor, level: Any) -> Any:
    menu = self.levels(tuple(w.shape))
    return menu[min(menu.index(tightest(w, level)) + 1, len(menu) - 1)]


OF_THEMSELVES = [
    (good, method, fault)
    for good in (TopK(), NM(), Rows(), Blocks(rows=2))
    for method, fault in (("mask", masks_everything), ("mask", masks_too_little), ("tightest", one_level_looser))
] + [
    (NM(), "after_cut", shifts_groups),
    (Blocks(rows=2), "after_cut", shifts_groups),
    (TopK(), "after_cut", keeps_a_level_off_the_menu),
    (Rows(), "after_cut", keeps_a_level_off_the_menu),
]


@pytest.mark.parametrize(("good", "method", "fault"), OF_THEMSELVES)
def test_what_a_set_says_of_itself_is_checked(good: Constraint, method: str, fault: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError):
        check_constraint(mutant(good, method, fault))


@dataclass(frozen=True)
class Every(TopK):
    """Keeps the k weights whose sum of ranks is best: a tighter level keeps others."""

    def project(self, weight: Tensor, level: Any, importance: Tensor | None = None) -> Tensor:
        z = super().project(weight, level, importance)
        return z if level != 1 else weight * (torch.arange(weight.numel()) == int(weight.abs().argmin())).view_as(z)


def test_a_set_that_does_not_nest_and_says_so_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_constraint(Every())
    case = next(c for c in cases(Every(), 0) if c.level == 1)
    with pytest.raises(AssertionError, match="beside it"):
        nested(case)


def test_values_that_say_they_keep_zeros_are_checked() -> None:
    said = type("Uniform", (Uniform,), {"keeps_zeros": property(lambda self: True)})
    with pytest.raises(AssertionError, match="a zero woke up"):
        check_constraint(said(zero="never", min_bits=1, max_bits=2))


SUPPORT = [one_less, one_more, higher_index_stays, smallest_stay]
SPECIAL: list[tuple[Constraint, list[tuple[str, Callable[..., Any]]]]] = [
    (TopK(), [("project", f) for f in (*SUPPORT, percentile, h_times_abs)]),
    (NM(), [("project", f) for f in (*SUPPORT, groups_along_rows, one_pool, h_times_abs)]),
    (Rows(), [("project", f) for f in (*SUPPORT, row_l1, unsquared_importance)]),
    (Blocks(rows=2), [("project", f) for f in (*SUPPORT, h_times_abs)]),
    (
        Uniform(max_bits=3),
        [("project", f) for f in (rough_scale, narrow_window, rounds_down, unsquared_importance)] + [("top", lopsided)],
    ),
    (
        Codebook(min_entries=1, max_entries=4),
        [("project", f) for f in (lloyd, evenly_spaced, one_entry_more, plain_means, unsquared_importance)],
    ),
    (
        AllOf((TopK(), Codebook(min_entries=1, max_entries=3))),
        [
            ("project", f)
            for f in (
                prune_then_quantise,
                quantise_then_prune,
                values_see_no_importance,
                wakes_zeros,
                unsquared_importance,
            )
        ],
    ),
    (
        AllOf((TopK(), Uniform(max_bits=3))),
        [("project", f) for f in (quantise_then_prune, values_see_no_importance)],
    ),
]
ORACLES = {type(c): oracle for name in catalog.names("constraints") for c, oracle in laws(name)}
ALL = [
    pytest.param(good, method, fault, id=f"{type(good).__name__}-{fault.__name__}")
    for good, special in SPECIAL
    for method, fault in (*GENERAL, *special)
]


@pytest.mark.parametrize(("good", "method", "fault"), ALL)
def test_the_suite_notices(good: Constraint, method: str, fault: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError):
        check_constraint(mutant(good, method, fault), oracle=ORACLES[type(good)])


def test_an_untouched_copy_passes() -> None:
    """The wrapping itself is not what the suite notices."""
    check_constraint(mutant(TopK(), "project", lambda project, self, *args, **kwargs: project(*args, **kwargs)))
