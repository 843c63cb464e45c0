"""`latency`: what the layers of a net take on this machine, as a table for budgets in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur import formats
from secateur.engine import tabulate
from secateur.engine.bench import draw
from secateur.engine.latency import Table
from secateur.engine.session import InferenceSession, read_model
from secateur.native import _native
from secateur.shell.showing import Shown, table

if TYPE_CHECKING:
    from rich.console import Console

Told = Callable[[int, int], None]
_EXAMPLES = 4  # for the ranges of activations
_SHOWN = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01)


def of_file(path: Path, told: Told, again: bool = False) -> Table:
    """The table of an `.onnx` or `.sct` file: all patterns, float32 and integers. Of narrower nets a recipe's tells.

    Args:
        again: time everything anew.
    """
    data = read_model(path)
    model = formats.unpack(data) if _native.is_sct(data) else data
    return tabulate.table(model, form=_form(model), integers="all", told=told, cached=not again)


def _form(model: bytes) -> tabulate.Form:
    """The file in integers, as `secateur quantize` writes it; of no narrower net, which only a recipe's can be."""

    def file(bits: int, width: float) -> bytes:
        from secateur import post_training

        rng, inputs = np.random.default_rng(0), InferenceSession(model).get_inputs()
        return post_training.quantize(model, {n.name: draw(n, _EXAMPLES, rng) for n in inputs}).model

    return file


def of_recipe(path: Path, told: Told, data_dir: Path | None = None) -> Table:
    """The table that a run of the recipe would plan with: the patterns of its sets at its model's shapes."""
    from secateur.api.asked import by_name, make_job
    from secateur.recipe import Recipe
    from secateur.run import forms, machine
    from secateur.training.checkpoint import Ledger

    recipe = Recipe.from_file(path)
    job = make_job(by_name(recipe, data_dir), recipe, Ledger(), None)
    grids = job.recipe.build_activations(job.start.traced.sites)
    form = forms.form(job.dense, job.start.traced, job.example_inputs, grids)
    return machine.table(job.dense_onnx, form, job.dense, job.start.terms, grids, told)


def shown(found: Table) -> Shown:
    """The table as JSON that prints as a table for people."""
    return Shown(found.json(), lambda record, console: _show(found, record, console))


def _show(found: Table, record: Mapping[str, Any], console: Console) -> None:
    columns = ["layer", "op", "weight", *(f"{d:.0%}" for d in _SHOWN)]
    many = sorted({(r.pattern, r.bits) for r in found.rows if r.width == 1.0})
    shapes = {r.layer: (r.op, "x".join(map(str, r.shape))) for r in found.rows if r.width == 1.0}
    for pattern, bits in many:
        rows = [
            [name, *shapes[name], *(f"{layer.cost('us', 1.0, d, pattern, bits):.1f}" for d in _SHOWN)]
            for name, layer in found.layers.items()
            if (pattern, bits) in layer.curves
        ]
        console.print(table(f"microseconds by density, zeros: {pattern}, {bits} bits", columns, rows))
    for bits, rest in found.rest_us.items():
        point = ("any", 1.0, bits, 1.0)
        dense = sum(r.us for r in found.rows if (r.pattern, r.density, r.bits, r.width) == point) + rest
        said = f"{bits} bits: around the layers {rest:.1f} us; the dense net {dense / 1000:.3f} ms"
        console.print(f"{said} on {found.cpu}, {found.isa}, {found.threads} thread", markup=False, highlight=False)
    for note in found.notes:
        console.print(f"- {note}", markup=False, highlight=False)
