"""`latency`: what the layers of a net take on this machine, as a table for budgets in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur import formats
from secateur.engine import tabulate
from secateur.engine.latency import Table
from secateur.engine.session import read_model
from secateur.native import _native
from secateur.shell.showing import Shown, table

if TYPE_CHECKING:
    from rich.console import Console

Told = Callable[[int, int], None]
_SHOWN = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01)


def of_file(path: Path, told: Told, again: bool = False) -> Table:
    """The table of an `.onnx` or `.sct` file: all patterns, float32 and integers.

    Args:
        again: time everything anew.
    """
    data = read_model(path)
    return tabulate.table(formats.unpack(data) if _native.is_sct(data) else data, told=told, cached=not again)


def of_recipe(path: Path, told: Told, data_dir: Path | None = None) -> Table:
    """The table that a run of the recipe would plan with: the patterns of its sets at its model's shapes."""
    from secateur.api.asked import by_name, make_job
    from secateur.recipe import Recipe
    from secateur.run import machine
    from secateur.training.checkpoint import Ledger

    recipe = Recipe.from_file(path)
    job = make_job(by_name(recipe, data_dir), recipe, Ledger(), None)
    grids = job.recipe.build_activations(job.start.traced.sites)
    return machine.table(job.dense_onnx, job.dense, job.start.terms, bool(grids), told)


def shown(found: Table) -> Shown:
    """The table as JSON that prints as a table for people."""
    return Shown(found.json(), lambda record, console: _show(found, record, console))


def _show(found: Table, record: Mapping[str, Any], console: Console) -> None:
    columns = ["layer", "op", "weight", *(f"{d:.0%}" for d in _SHOWN)]
    many = sorted({(r.pattern, r.bits) for r in found.rows if r.pattern != "channels"})
    shapes = {r.layer: (r.op, "x".join(map(str, r.shape))) for r in found.rows}
    for pattern, bits in many:
        rows = [
            [name, *shapes[name], *(f"{layer.cost('us', 1.0, d, pattern, bits):.1f}" for d in _SHOWN)]
            for name, layer in found.layers.items()
            if (pattern, bits) in layer.curves
        ]
        console.print(table(f"microseconds by density, zeros: {pattern}, {bits} bits", columns, rows))
    dense = sum(r.us for r in found.rows if (r.pattern, r.density, r.bits) == ("any", 1.0, 32)) + found.rest_us
    said = f"around the layers {found.rest_us:.1f} us; the dense net {dense / 1000:.3f} ms"
    console.print(f"{said} on {found.cpu}, {found.isa}, {found.threads} thread", markup=False, highlight=False)
    for note in found.notes:
        console.print(f"- {note}", markup=False, highlight=False)
