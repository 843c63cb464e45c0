"""The laws of a constraint, for every file of the room and for constraints from outside.

`check_constraint(MyConstraint())` raises AssertionError naming the broken law, the level and the case. The nearest
point is compared with brute force (`brute_force.py`) on tiny matrices: of a set of supports by what it contains; a
set's test passes an `oracle` of its own, without which a set of values is compared with members at hand only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from secateur.contracts import Constraint
from secateur.errors import ConstraintError, SecateurError
from secateur.testing import brute_force
from secateur.testing.cases import cases, fits, is_joint, levels_of, shapes_of
from secateur.testing.laws import LAWS, packings_of, stored_of
from secateur.types import Level, Packing, Stage, log2_choose

_UNITS = 5  # at least so many units in a set's own shapes
_NEAR = 1 / 3  # estimates are means over trained nets; the codes of normal weights take up to a fifth more


def check_constraint(
    constraint: Constraint | type[Constraint], *, seed: int = 0, oracle: brute_force.Oracle | None = None
) -> None:
    """Raise AssertionError when a constraint breaks a law.

    Args:
        constraint: an instance, or a class that can be made without arguments.
        seed: of the random matrices; every failure message holds the matrix itself.
        oracle: (constraint, weight float64 [rows, cols], level, h) -> smallest distance, written from the definition.
    """
    if isinstance(constraint, type):
        constraint = constraint()
    n_cases = 0
    for case in cases(constraint, seed, oracle):
        n_cases += 1
        for law in LAWS:
            law(case)
    assert n_cases, f"{constraint}: fits none of the shapes {shapes_of(constraint)}"
    for whole in (_trials, _refuses_bad_input, _size, _menus):
        whole(constraint, seed)


def _trials(constraint: Constraint, seed: int) -> None:
    """A set's own shapes fit it, and hold enough units for a wrong score to show."""
    assert constraint.trials, f"{constraint}: gives no shapes for its tests"
    for shape in constraint.trials if not is_joint(constraint) else ():
        assert fits(constraint, shape), f"{constraint}: does not fit {list(shape)}, which it gives for its tests"
        if constraint.stage == Stage.SUPPORT:
            n = _n_units(constraint, shape, seed)
            assert n >= _UNITS, f"{constraint}: {list(shape)} has {n} units, {_UNITS} are needed; override `trials`"


def _n_units(constraint: Constraint, shape: tuple[int, int], seed: int) -> int:
    """Sets of weights that are kept and dropped together, as far as some random matrices tell."""
    g = torch.Generator().manual_seed(seed)
    draws = [torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(8)]
    levels = levels_of(constraint, shape)
    masks = torch.stack([(constraint.project(w, level) != 0).flatten() for w in draws for level in levels])
    return int(masks.unique(dim=1).shape[1])


def _refuses_bad_input(constraint: Constraint, seed: int) -> None:
    shape = next(s for s in shapes_of(constraint) if fits(constraint, s))
    good = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    level = constraint.levels(shape)[0]
    ones = torch.ones(shape)
    minus = ones.clone()
    minus[-1, -1] = -1.0
    bad: dict[str, tuple[Any, Any, Any]] = {
        "NaN": (good.clone().fill_(math.nan), level, None),
        "infinity": (good.clone().fill_(math.inf), level, None),
        "a NaN importance": (good, level, ones * math.nan),
        "a negative importance": (good, level, minus),
        "an importance of another shape": (good, level, torch.ones(shape[0] + 1, shape[1])),
        "a level off the menu": (good, _off_menu(level), None),
        "a vector": (good.flatten(), level, None),
        "integers": (torch.ones(shape, dtype=torch.int64), level, None),
    }
    for name, (weight, at, h) in bad.items():
        try:
            constraint.project(weight, at, h)
        except ConstraintError:
            continue
        raise AssertionError(f"{constraint}: {name} is not refused with ConstraintError")
    for given in ({}, {"no_such_key": 1}):
        try:
            constraint.parse_level(given, shape)
        except ConstraintError:
            continue
        raise AssertionError(f"{constraint}: parse_level({given}) is not refused with ConstraintError")


def _off_menu(level: Level) -> Level:
    return tuple(_off_menu(part) for part in level) if isinstance(level, tuple) else 10**9


def _menus(constraint: Constraint, seed: int) -> None:
    """Levels on the way stay on the menu and reach the target; distances fall along a menu of counts."""
    for shape in shapes_of(constraint):
        if not fits(constraint, shape):
            continue
        menu = constraint.levels(shape)
        for level in levels_of(constraint, shape):
            assert level in menu, f"{constraint}: level {level} of {shape} is not in its own menu"
            assert constraint.at_tightness(shape, level, 1.0) == level, f"{constraint}: tightness 1 must give {level}"
            assert constraint.at_tightness(shape, level, 0.0) is None, f"{constraint}: tightness 0 must be dense"
            for way in (constraint.at_tightness(shape, level, t) for t in (0.2, 0.7, 0.99)):
                pairs = zip(way, menu[0], strict=True) if isinstance(way, tuple) else ()  # type: ignore[arg-type]
                assert way is None or way in menu or any(a is None for a, _ in pairs), f"{constraint}: {way} off menu"
        if not is_joint(constraint):
            w = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            found = [constraint.distance(w)(level) for level in levels_of(constraint, shape)]
            falls = all(b <= a + 1e-9 for a, b in pairwise(found))
            assert falls, f"{constraint}: distances do not fall along the menu: {found}"


def _size(constraint: Constraint, seed: int) -> None:
    """The coded size never exceeds what `packing` promised, and the estimate is near it."""
    for shape in ((1, 1), (4, 8), (48, 64)):
        if not fits(constraint, shape):
            continue
        w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for level in levels_of(constraint, shape):
            promises = packings_of(constraint, shape, level)
            for weight in (w, torch.ones(shape), w * (w.abs() > 1)):
                z = constraint.project(weight, level)
                for stored, promise in zip(stored_of(constraint, z, level), promises, strict=True):
                    size = coded_nbytes(stored, promise, constraint.grid(z) if stored is z else None)
                    said = f"{constraint}, level {level} of {shape}: coded {size} bytes"
                    assert size <= promise.max_nbytes, f"{said}, promised {promise.max_nbytes}"
                    if weight is w:
                        assert promise.n == stored.numel(), f"{said}, packing.n is {promise.n}, not {stored.numel()}"
                    if weight is w and shape == (48, 64):  # priced too dear, a level would never be taken
                        far = max(_NEAR * size, 16)
                        assert abs(promise.estimate - size) <= far, f"{said}, estimated {promise.estimate:.0f}"


def coded_nbytes(z: Tensor, packing: Packing, scale: Tensor | None = None) -> float:
    """Bytes of one tensor in the file: `formats.measure` where the native coder is built, else its bound.

    Args:
        scale: one or one a row, where z is whole codes times it: codes and scales may be the shorter way (`written`).
    """
    try:
        from secateur.formats import measure  # type: ignore[attr-defined]

        size = measure(z.float().numpy()).nbytes
        if scale is not None:
            codes = (z / scale.reshape(-1, 1)).round().to(torch.int8)
            size = min(size, measure(codes.numpy()).nbytes + measure(scale.float().numpy()).nbytes)
        return float(size)
    except (ImportError, SecateurError):
        return math.floor(bound_nbytes(z, packing))


def bound_nbytes(z: Tensor, packing: Packing) -> float:
    """1.03 x [log2 C(n, nnz) + nnz x H0 + codebook] / 8 + 32, values raw where that is less."""
    kept = z[z != 0]
    counts = torch.unique(kept, return_counts=True)[1].double()
    entropy = float(-(counts * (counts / kept.numel()).log2()).sum()) if kept.numel() else 0.0
    table = packing.n_values * packing.entry_bits
    # With a scale for each row the codes repeat, not the values: count a code for each then.
    codes = kept.numel() * math.log2(max(2**packing.bits - 1, 1))
    values = min(32.0 * kept.numel(), entropy + table, codes + table)
    return 1.03 * (log2_choose(z.numel(), kept.numel()) + values) / 8 + 32
