"""Activations of a net on 8-bit grids, between the polish and the training of values: rewritten, calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secateur import graph
from secateur.contracts import ActivationSet, Constraint, Term
from secateur.errors import ConstraintError, UsageError
from secateur.export import membership
from secateur.graph import activations
from secateur.graph.activations import Grid
from secateur.graph.copying import copied
from secateur.run.net import Net
from secateur.terms import feasible
from secateur.training.batches import tensors
from secateur.training.loop import load_weights
from secateur.training.observing import observe
from secateur.types import Level, Stage, Weights

if TYPE_CHECKING:
    from torch import fx

    from secateur.run.job import Job


_NO_CODES = (
    "its weights are on no int8 grid, so the layer cannot run in integers; give them uniform levels (quantize.weights: "
    "8, or constrain: {with: {name: uniform, per: row}}), or leave the layer out (quantize.keep_float)"
)


def quantized(job: Job, name: str, net: Net) -> Net:
    """`net` with batch norms folded, fake-quantize calls in its forward pass, and their scales found by calibration.

    The net as it came where the recipe asks for no activations, or where it has them already. A layer whose values the
    budget left as they are reads floats.

    Raises:
        ConstraintError: a layer whose weights are on no int8 grid. UnsupportedError: a forward that is no fixed graph.
    """
    asked = _in_integers(net, job.recipe.build_activations(net.traced.sites))
    if not asked or net.activations:
        return net
    job.pulse(f"{name}.calibration")
    made, grids = places(net.module, job, asked)
    weights = _written(net, made.module, tuple(asked))
    batches = max(c.batches for c in asked.values())
    data = islice(job.setting.batches.epoch(job.setting.seed, "calibration", 0), batches)
    trial = copied(made.module)
    load_weights(trial, weights)
    seen = observe(trial, {n for g in grids for n in g.nodes}, data)
    terms = tuple(term_of(g, asked) for g in grids)
    module, record = activations.rewrite(made, grids)
    for grid, term in zip(grids, terms, strict=True):
        sample = torch.cat([seen[n] for n in grid.nodes], dim=1)
        try:
            scale = asked_of(term).scale(sample)
        except ConstraintError as e:
            raise ConstraintError(f"activations at {term.site.name}: {e}") from None
        module.get_buffer(grid.scale).fill_(scale)
    job.pulse(f"{name}.calibration", last=True)
    traced = graph.trace(module, job.example_inputs)
    sites = {s.name: s for s in traced.sites}
    own = tuple(replace(t, site=sites[t.site.name]) if t.site.of == "weight" else t for t in net.terms)
    return replace(net, module=module, traced=traced, terms=own, surgery=[*net.surgery, record], activations=terms)


def _in_integers(net: Net, asked: Mapping[str, ActivationSet]) -> dict[str, ActivationSet]:
    """`asked` without the layers whose values the budget left as they are."""
    floats = {t.site.name for t in net.terms if t.site.name in net.levels and _left(t, net.levels[t.site.name])}
    return {name: c for name, c in asked.items() if name not in floats}


def _left(term: Term, level: Level) -> bool:
    parts = term.constraint.split(level)
    return not term.given and any(part.stage == Stage.VALUES and at is None for part, at in parts)


def planned(job: Job, net: Net) -> tuple[Term, ...]:
    """The grids that the recipe asks for on `net`, without their scales; what cannot be had is refused.

    Raises:
        UsageError: a layer whose weights take no int8 codes. UnsupportedError: as `quantized`.
    """
    asked = job.recipe.build_activations(net.traced.sites)
    if not asked:
        return ()
    coded = {t.site.name for t in net.terms for c, _ in t.constraint.split(None) if type(c).grid is not Constraint.grid}
    if left := [name for name in asked if name not in coded]:
        raise UsageError(f"activations at {left[0]}: {_NO_CODES}")
    return tuple(term_of(g, asked) for g in places(net.module, job, asked)[1])


def note(terms: Sequence[Term]) -> str:
    """One sentence that names the grids."""
    names = ", ".join(f"{t.site.name} ({'s8' if asked_of(t).signed else 'u8'})" for t in terms)
    return f"activations lie on {len(terms)} grids of 8 bits, named by their first call: {names}"


def left_note(job: Job, net: Net) -> str | None:
    """One sentence that names the layers that were to read integers and that the budget left in float."""
    asked = job.recipe.build_activations(net.traced.sites)
    left = [name for name in asked if name not in _in_integers(net, asked)]
    return f"the budget leaves these layers in float, which therefore read floats: {', '.join(left)}" if left else None


def places(
    module: nn.Module, job: Job, asked: Mapping[str, ActivationSet]
) -> tuple[activations.Calls, tuple[Grid, ...]]:
    """The forward pass as calls, and the grids that the layers of `asked` need."""
    made = activations.calls(module)
    return made, activations.find(made.module, tensors(job.example_inputs.inputs), tuple(asked))


def term_of(grid: Grid, asked: Mapping[str, ActivationSet]) -> Term:
    """The term of a grid, as the recipe asks for it at the first layer that needs it."""
    return Term(grid.site, replace(asked[grid.readers[0]], signed=not grid.unsigned), 8, True)


def asked_of(term: Term) -> ActivationSet:
    """The set of an activation's term."""
    assert isinstance(term.constraint, ActivationSet)
    return term.constraint


def _written(net: Net, module: fx.GraphModule, names: Sequence[str]) -> Weights:
    """The weights in their sets, as they will be written; those of `names` must lie on grids of int8 codes."""
    live: dict[str, Tensor] = {k: p.detach() for k, p in module.named_parameters()}
    near = {**live, **feasible.project(net.terms, net.levels, live)}
    codes = feasible.grids(net.terms, near)
    if left := [n for n in names if n not in codes]:
        raise ConstraintError(f"activations at {left[0]}: {_NO_CODES}")
    return near


def record(module: nn.Module, terms: Sequence[Term]) -> list[dict[str, Any]]:
    """What report.json says of the grids: name, scale, ends of the codes, the set."""
    return [
        {
            "name": t.site.name,
            "buffer": t.site.members[0].param,
            "scale": float(module.get_buffer(t.site.members[0].param)),
            "low": asked_of(t).ends[0],
            "high": asked_of(t).ends[1],
            "with": membership.settings_of(t.constraint),
        }
        for t in terms
    ]
