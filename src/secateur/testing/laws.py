"""The laws that every constraint keeps on one matrix at one level (`Case`); AssertionError names the broken one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, permutations, product

import torch
from torch import Tensor

from secateur.contracts import Constraint, Piece
from secateur.testing import brute_force
from secateur.testing.cases import Case, fits, is_joint
from secateur.types import Chain, Level, Packing, Stage


def membership(case: Case) -> None:
    z = case.z
    assert z.shape == case.weight.shape, f"shape changed to {list(z.shape)}: {case}"
    assert z.dtype == case.weight.dtype, f"dtype changed to {z.dtype}: {case}"
    assert bool(z.isfinite().all()), f"not finite: {case}"
    assert not bool(z.signbit()[z == 0].any()), f"a zero is -0.0, which formats keep as a value: {case}"
    assert case.constraint.contains(z, case.level), f"project() is no member, {z.tolist()}: {case}"
    assert case.constraint.contains(case.weight, None), f"level None (dense) must contain everything: {case}"
    assert torch.equal(case.constraint.project(case.weight, None), case.weight), f"level None must keep all: {case}"


def idempotence(case: Case) -> None:
    z = case.z
    again = case.constraint.project(z, case.level, case.importance)
    assert torch.equal(z, again), f"projecting twice changes {z.tolist()} to {again.tolist()}: {case}"


def purity(case: Case) -> None:
    weight = case.weight.clone()
    h = None if case.importance is None else case.importance.clone()
    first, second = case.project(), case.z
    assert torch.equal(weight, case.weight), f"the weight was changed in place: {case}"
    assert h is None or torch.equal(h, case.importance), f"the importance was changed in place: {case}"  # type: ignore[arg-type]
    assert torch.equal(first, second), f"same call, other bits: {case}"
    assert first.data_ptr() != case.weight.data_ptr(), f"the result shares memory with the weight: {case}"
    first.fill_(7.0)
    assert torch.equal(weight, case.weight), f"the result shares memory with the weight: {case}"


def nearest(case: Case) -> None:
    """No candidate is nearer: brute force, and whatever member is at hand."""
    best, reached = case.best, math.sqrt(case.distance(case.z))
    if best is not None:
        floor = math.sqrt(max(best, 0.0))
        assert reached >= floor - case.slack() - 1e-7 * case.norm(), f"{reached} beats brute force {floor}: {case}"
        if case.constraint.exact:
            # float64 brute force by differences of squares is good to about 1e-8 of the norm
            assert reached <= floor + case.slack() + 3e-8 * case.norm(), f"{reached}, brute force {floor}: {case}"
    if not case.constraint.exact:
        plain = case.constraint.project(case.weight, case.level, None)
        d = math.sqrt(case.distance(plain))
        worse = not is_joint(case.constraint) and reached > d + case.slack() + 1e-9 * case.norm()
        assert not worse, f"{reached}, without the importance {d}: {case}"
        return
    for other in (torch.zeros_like(case.weight), case.constraint.project(case.weight, case.level, None)):
        if case.constraint.contains(other, case.level):
            d = math.sqrt(case.distance(other))
            assert reached <= d + case.slack() + 1e-9 * case.norm(), f"{reached}, a member lies at {d}: {case}"


def tight(case: Case) -> None:
    """What is nearer than the nearest member is no member: the projection with its worst weight put back."""
    z, square = case.z, case.h * (case.weight.double() - case.z.double()).square()
    worst = int(square.argmax())
    total, gap = float(square.sum()), float(square.flatten()[worst])
    gained = math.sqrt(total) - math.sqrt(max(total - gap, 0.0))
    if not case.constraint.exact or gained <= case.slack() + 1e-7 * case.norm():
        return
    nearer = z.clone()
    nearer.view(-1)[worst] = case.weight.flatten()[worst]
    assert not case.constraint.contains(nearer, case.level), f"{nearer.tolist()} is called a member: {case}"


def ties(case: Case) -> None:
    """Support sets: among equally good supports the one with the lower indices."""
    if case.constraint.stage != Stage.SUPPORT or bool((case.weight == 0).any() | (case.h == 0).any()):
        return
    known = case.oracle if isinstance(case.oracle, brute_force.Supports) else brute_force.Supports()
    masks = known.best(case.constraint, case.weight.double().numpy(), case.level, case.h.numpy())
    if masks is None or not case.constraint.exact:
        return
    first = max(masks.tolist())
    kept = (case.z != 0).flatten().tolist()
    assert kept == first, f"kept {kept}, lower indices first is {first}: {case}"


def joint(case: Case) -> None:
    """Joint sets: never worse than any sequence of the parts, and new values alone cannot improve the answer."""
    parts = [(part, level) for part, level in case.constraint.split(case.level) if level is not None]
    if not is_joint(case.constraint) or len(parts) < 2:
        return
    z, w, h = case.z, case.weight, case.importance
    reached, slack = math.sqrt(case.distance(z)), case.slack() + 1e-7 * case.norm()
    sequences = {}
    for order in permutations(parts):
        trial = w
        for part, level in order:
            trial = part.project(trial, level, h)
        sequences[", then ".join(part.name for part, _ in order)] = trial
    (values, what) = parts[-1]
    if values.stage == Stage.VALUES:
        fitted = values.project(w, what, case.h * (z != 0)).masked_fill(z == 0, 0.0)
        sequences["new values on its support"] = fitted
    for name, other in sequences.items():
        d = math.sqrt(case.distance(other))
        assert reached <= d + slack or not case.constraint.contains(other, case.level), f"{reached}, {name} {d}: {case}"
    assert bool((z[w == 0] == 0).all()), f"a zero woke up, {z.tolist()}: {case}"


def shared(case: Case) -> None:
    """`masked` and `select`, which joint sets call, answer as the contract's own forms of them."""
    c, w, h = case.constraint, case.weight, case.importance
    if case.level is None or is_joint(c) or c.stage == Stage.FORM:
        return
    if c.stage == Stage.SUPPORT:
        gain = case.h * w.double().square()
        kept, plain = c.select(gain, case.level), Constraint.select(c, gain, case.level)
        assert torch.equal(kept, plain), f"select() keeps {kept.tolist()}, by project() {plain.tolist()}: {case}"
        return
    own, own_plain = c.masked(w, case.level, h), Constraint.masked(c, w, case.level, h)
    for mask in (w > w.mean(), w != 0, torch.ones_like(w, dtype=torch.bool), torch.zeros_like(w, dtype=torch.bool)):
        z, plain = own(mask), own_plain(mask)
        assert torch.equal(z, plain), f"masked() gives {z.tolist()}, project() {plain.tolist()} of {mask}: {case}"


def curve(case: Case) -> None:
    found = case.constraint.distance(case.weight, case.importance)
    assert found(None) == 0.0, f"distance(None) must be 0: {case}"
    said, actual = math.sqrt(max(found(case.level), 0.0)), math.sqrt(case.distance(case.z))
    assert abs(said - actual) <= case.slack() + 1e-7 * case.norm(), f"distance() says {said}, it is {actual}: {case}"


def piece(case: Case) -> None:
    z = case.z
    frozen = case.constraint.freeze(z, case.level)
    assert torch.equal(frozen.project(z), z), f"freeze(z) moves z to {frozen.project(z).tolist()}: {case}"
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randn(case.shape, generator=g, dtype=torch.float64).to(z.dtype) for _ in range(2))
    tol = 16 * torch.finfo(z.dtype).eps * math.sqrt(z.numel())
    kept = a.clone()
    pa, pb = frozen.project(a), frozen.project(b)
    assert torch.equal(a, kept), f"freeze(z).project changes its input: {case}"
    if not case.constraint.rounding:  # rounded values are free here and rounded once more at the end
        assert case.constraint.contains(pa, case.level), f"the piece leaves the set, {pa.tolist()}: {case}"
    if not frozen.linear:
        _retracts(case, frozen)
        return
    torch.testing.assert_close(frozen.project(pa), pa, rtol=tol, atol=tol, msg=f"piece not idempotent: {case}")
    both = frozen.project(2 * a - b)
    torch.testing.assert_close(both, 2 * pa - pb, rtol=tol, atol=4 * tol, msg=f"piece not linear: {case}")
    left, right = (pa.double() * b.double()).sum(), (a.double() * pb.double()).sum()
    assert abs(float(left - right)) <= 8 * tol, f"piece not self-adjoint: {case}"


def _retracts(case: Case, piece: Piece) -> None:
    """A curved piece: what it answers stays as it is, and small steps are projected orthogonally onto its tangent."""
    z, size = case.z, float(case.z.double().norm())
    if z.dtype != torch.float64 or not size:
        return
    g = torch.Generator().manual_seed(2)
    step = 1e-7 * size

    def tangent(a: Tensor) -> Tensor:
        """Its derivative at z, by central differences."""
        return (piece.project(z + step * a) - piece.project(z - step * a)) / (2 * step)

    a, b = (torch.randn(case.shape, generator=g, dtype=torch.float64) for _ in range(2))
    pa, pb, near = tangent(a), tangent(b), piece.project(z + 0.1 * size * a)
    tol = 1e-4 * max(float(a.norm()), float(b.norm()))
    torch.testing.assert_close(piece.project(near), near, rtol=1e-9, atol=1e-9 * size, msg=f"no retraction: {case}")
    torch.testing.assert_close(tangent(2 * a - b), 2 * pa - pb, rtol=0, atol=tol, msg=f"bent at the member: {case}")
    torch.testing.assert_close(tangent(pa), pa, rtol=0, atol=tol, msg=f"leaves its tangent: {case}")
    left, right = float((pa * b).sum()), float((a * pb).sum())
    assert abs(left - right) <= tol * float(b.norm()), f"the step is not projected orthogonally: {case}"


def form(case: Case) -> None:
    """`realize` gives tensors of the member's dtype that are the member again, and no more than `packing` prices."""
    z = case.z
    stored = stored_of(case.constraint, z, case.level)
    fit = all(a.shape[1] == b.shape[0] for a, b in pairwise(stored))
    product = torch.linalg.multi_dot([t.double() for t in stored]) if fit and stored[1:] else stored[0].double()
    bound = 16 * torch.finfo(z.dtype).eps * math.sqrt(max(z.shape)) * float(z.double().norm())
    off = float((product - z.double()).norm()) if product.shape == z.shape else math.inf
    assert off <= bound, f"the stored tensors give a matrix that is {off} off the member: {case}"
    assert all(t.dtype == z.dtype for t in stored), f"stored as {[t.dtype for t in stored]}: {case}"
    assert not any(bool(t.signbit()[t == 0].any()) for t in stored), f"a stored zero is -0.0: {case}"
    promised = packings_of(case.constraint, case.shape, case.level)
    n, nnz = [t.numel() for t in stored], [int(t.count_nonzero()) for t in stored]
    assert len(stored) == len(promised), f"{len(stored)} tensors, packing() prices {len(promised)}: {case}"
    fits = all(a <= p.n and b <= p.nnz for a, b, p in zip(n, nnz, promised, strict=True))
    assert fits, f"tensors of {n} weights, {nnz} nonzero, packing() says {promised}: {case}"
    if len(stored) > 1 and z.dtype == torch.float64 and bool(z.any()):
        _trains(case, stored)


def _trains(case: Case, factors: tuple[Tensor, ...]) -> None:
    """Masked retraining moves every factor: a small change of one is a step that the piece follows."""
    piece, size = case.constraint.freeze(case.z, case.level), float(case.z.norm())
    g = torch.Generator().manual_seed(3)
    for at, factor in enumerate(factors):
        moved = [*factors]
        live = (factor != 0).any(1, keepdim=True) & (factor != 0).any(0, keepdim=True)
        moved[at] = torch.randn(factor.shape, generator=g, dtype=torch.float64) * live
        step = moved[0]
        for f in moved[1:]:
            step = step @ f
        t = 1e-7 * size / max(float(step.norm()), 1e-300)
        followed = (piece.project(case.z + t * step) - piece.project(case.z - t * step)) / (2 * t)
        off = float((followed - step).norm())
        assert off <= 1e-4 * float(step.norm()), f"the piece does not train factor {at}: {case}"


def stored_of(constraint: Constraint, z: Tensor, level: Level) -> tuple[Tensor, ...]:
    """The tensors that a member is stored as."""
    found = constraint.realize(z, level)
    return found.factors if isinstance(found, Chain) else (z,)


def packings_of(constraint: Constraint, shape: tuple[int, int], level: Level) -> tuple[Packing, ...]:
    found = constraint.packing(shape, level)
    return (found,) if isinstance(found, Packing) else found


def equivariance(case: Case) -> None:
    """Scaling and sign carry over, and row order where the set bears any (`Constraint.row_order`).

    Compared by distance, where several answers are equally good.
    """
    c, w, h, level = case.constraint, case.weight, case.importance, case.level
    d, slack = math.sqrt(case.distance(case.z)), case.slack() + 1e-7 * case.norm()
    if not c.exact:
        return
    others = {
        "4 w": math.sqrt(float((case.h * (w.double() - c.project(4 * w, level, h).double() / 4).square()).sum())),
        "-w": math.sqrt(float((case.h * (w.double() + c.project(-w, level, h).double()).square()).sum())),
        "16 h": math.sqrt(case.distance(c.project(w, level, 16 * case.h))),
    }

    def reversed_along(axis: int) -> float:
        g = None if h is None else h.flip(axis)
        return math.sqrt(case.distance(c.project(w.flip(axis), level, g).flip(axis)))

    # Supports are judged by brute force; blocks left over at an edge mind the order.
    if c.stage == Stage.VALUES and not c.row_order:
        others["rows reversed"] = reversed_along(0)
    if c.view in ("oc", "channels"):
        others["columns reversed"] = reversed_along(1)
    for name, other in others.items():
        assert abs(other - d) <= slack, f"distance {d}, for {name} {other}: {case}"


def zeros(case: Case) -> None:
    """A set that says so keeps zeros at zero; a set of values can be made to."""
    c, w = case.constraint, case.weight
    woken = case.z[w == 0]
    assert not c.keeps_zeros or not bool(woken.any()), f"a zero woke up, {case.z.tolist()}: {case}"
    free = c.with_free_zero()
    assert free.keeps_zeros or not c.keeps_zeros, f"with_free_zero() gives up zeros: {case}"


def supports(case: Case) -> None:
    """`mask` is where the piece of a support is free."""
    c, z = case.constraint, case.z
    if c.stage != Stage.SUPPORT:
        return
    mask, some = c.mask(z, case.level), torch.linspace(-1.0, 2.0, z.numel(), dtype=z.dtype).view_as(z)
    assert mask.dtype == torch.bool, f"mask() is {mask.dtype}: {case}"
    assert not bool((z != 0)[~mask].any()), f"mask() {mask.tolist()} leaves out what is kept: {case}"
    frozen = c.freeze(z, case.level).project(some)
    assert torch.equal(frozen, some.masked_fill(~mask, 0.0) + 0.0), f"the piece is not mask() {mask.tolist()}: {case}"


def nested(case: Case) -> None:
    """Sets that say so: the support at a tighter level lies inside the looser one's; `tightest` is the first that fits.

    The last level of their menu holds everything.
    """
    c, z, w = case.constraint, case.z, case.weight
    held = c.tightest(z, case.level)
    assert c.contains(z, held), f"tightest() says {held}, which {z.tolist()} is no member of: {case}"
    if not c.nests:
        assert is_joint(c) or held == case.level, f"tightest() says {held} of a set that does not nest: {case}"
        return
    menu = c.levels(case.shape)
    at = menu.index(case.level)
    assert menu.index(held) <= at, f"tightest() says {held}: {case}"
    assert held == menu[0] or not c.contains(z, menu[menu.index(held) - 1]), f"tightest() says {held}: {case}"
    assert c.contains(w, menu[-1]), f"the last level is not dense: {case}"
    for looser in dict.fromkeys((menu[min(at + 1, len(menu) - 1)], menu[-1])):
        outer = c.project(w, looser, case.importance)
        assert not bool((z != 0)[outer == 0].any()), f"level {looser} gives {outer.tolist()}, beside it: {case}"
        assert c.contains(z, looser), f"a member of level {case.level} is none of {looser}: {case}"


def cut(case: Case) -> None:
    """What `after_cut` answers holds of what is left; whether it answers does not hang on the level."""
    c, z, (n_rows, n_cols) = case.constraint, case.z, case.shape
    rows, cols = list(range(n_rows)), list(range(n_cols))
    assert c.after_cut(case.shape, rows, cols, case.level) in (None, (c, case.level)), f"nothing is cut: {case}"
    kept_rows, kept_cols = (rows, rows[:-1], rows[1:], rows[::2]), (cols, cols[:-1], cols[2:], cols[1::2])
    for some_rows, some_cols in product(kept_rows, kept_cols):
        found = c.after_cut(case.shape, some_rows, some_cols, case.level)
        dense = c.after_cut(case.shape, some_rows, some_cols, None)
        said = f"after_cut to rows {some_rows}, columns {some_cols} gives {found}: {case}"
        assert (found is None) == (dense is None), f"dense {dense}; {said}"
        if found is None or not (some_rows and some_cols):
            continue
        after, level = found
        left = len(some_rows), len(some_cols)
        assert fits(after, left), f"the set does not fit what is left; {said}"
        assert _at_menu(after, left, level), f"off the menu; {said}"
        assert after.contains(z[some_rows][:, some_cols], level), said


def _at_menu(constraint: Constraint, shape: tuple[int, int], level: Level) -> bool:
    return all(at is None or at in part.levels(shape) for part, at in constraint.split(level))


LAWS: tuple[Callable[[Case], None], ...] = (
    purity,  # first: a projection that changes its input would otherwise hide it behind its own second call
    membership,
    idempotence,
    nearest,
    tight,
    ties,
    joint,
    shared,
    curve,
    piece,
    zeros,
    supports,
    nested,
    cut,
    form,
    equivariance,
)
