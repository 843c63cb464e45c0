"""Projection that spends no weight on what cannot matter. Pure; shared by solvers and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from secateur.contracts import Term
from secateur.terms import views
from secateur.terms.feasible import Importance, project, without
from secateur.types import Level, Weights

if TYPE_CHECKING:
    from torch import Tensor

# Rounds of "drop the dead, spend their budget elsewhere". On the way one is enough: the next pruning comes anyway, each
# costs an allocation, and what is still dead keeps its value (zeroed, LeNet-5 at 246x ended 5 % below its budget).
_REFILLS, _REFILLS_ON_THE_WAY = 12, 1
SETTLED = 0.002  # at the target: stop when no more than this fraction of the kept weights is dead
ROUGHLY = 0.02  # the same where a price is asked: what is dead in the end is zero, and a training moves more than that
_NEWS = 0.25  # of that fraction must be found dead that was not known to be: a layer may have no others to take


def project_live(
    terms: Sequence[Term],
    allocate: Callable[[Weights, Importance, float], Mapping[str, Level]],
    weights: Weights,
    importance: Importance,
    tightness: float,
    effective: Callable[[Weights], Mapping[str, Tensor]] | None = None,
    companions: Callable[[Weights], Mapping[str, Tensor]] | None = None,
    settled: float = SETTLED,
) -> tuple[dict[str, Level], dict[str, Tensor]]:
    """Allocate, project, drop weights that cannot matter, and let the freed budget go to others. Heuristic.

    A weight of a unit without inputs or without readers is *dead*: its importance becomes 0 and the projection is
    repeated from the same `weights`, so that the next best weight takes its place. At tightness 1 what is still dead
    after the last round is set to zero (the answer is then sparser than allowed, never denser).

    Args:
        companions: weights -> bool masks of what must go with removed channels (biases, norms); set to zero as well.
        settled: at tightness 1 the rounds end when no more than this share of the kept weights is dead, or when no
            more than a quarter of it is dead that was not known to be: a layer without other weights takes those again.
    Returns:
        levels per site name, and the projected parameters (new tensors).
    """
    import torch

    h = dict(importance)
    dead: dict[str, Tensor] = {}
    refills = _REFILLS if tightness >= 1.0 else _REFILLS_ON_THE_WAY
    for attempt in range(refills + 1):
        levels = dict(allocate(weights, h, tightness))
        there = {**weights, **without(terms, levels, weights, h)}  # what is inside need not find out what goes
        near = {k: v.clone() if v is weights[k] else v for k, v in project(terms, levels, there, h).items()}
        if companions is not None:
            for name, kept in companions({**weights, **near}).items():
                near[name] = near.get(name, weights[name]).masked_fill(~kept, 0)
        if effective is None:
            return levels, near
        last: dict[str, Tensor] = {}
        alive = effective({**weights, **near})
        n_dead = n_new = n_kept = 0
        for name, w in near.items():
            useless = (w != 0) & ~alive[name] if name in alive else torch.zeros_like(w, dtype=torch.bool)
            n_dead, n_kept = n_dead + int(useless.sum()), n_kept + int(w.count_nonzero())
            n_new += int((useless & ~dead[name] if name in dead else useless).sum())
            if bool(useless.any()):
                last[name] = useless
                dead[name] = dead[name] | useless if name in dead else useless
        few = settled * n_kept
        if n_new == 0 or attempt == refills or (tightness >= 1.0 and (n_dead <= few or n_new <= _NEWS * few)):
            break
        for term in terms:
            touched = any(m.param in dead for m in term.site.members)
            if touched and term.site.op != "channels":
                h[term.site.name] = _without(term, weights, h.get(term.site.name), dead)
    if tightness >= 1.0:  # what was dead beside an earlier round's readers may be read now
        near = {k: w.masked_fill(last[k], 0) if k in last else w for k, w in near.items()}
    return levels, near


def _without(term: Term, weights: Weights, h: Tensor | None, dead: Mapping[str, Tensor]) -> Tensor:
    view = term.constraint.view
    mask = views.matrix(term.site, view, {m.param: dead[m.param] for m in term.site.members})
    if h is None:
        h = views.matrix(term.site, view, weights).new_ones(mask.shape)
    return h.masked_fill(mask, 0)
