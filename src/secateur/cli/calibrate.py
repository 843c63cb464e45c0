"""`secateur calibrate`: teach the cost model this machine."""

from __future__ import annotations

import time

import typer

from secateur.cli._extras import need
from secateur.cli._output import print_json
from secateur.report import progress
from secateur.types import Progress


def command(
    forget: bool = typer.Option(False, "--forget", help="Delete what was found on this machine."),
    json_: bool = typer.Option(False, "--json", help="One JSON object on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Time layers of every kind for some seconds, and keep by how much the cost model errs on this machine.

    Sessions with tune="fast" or "full" then choose kernels by it where they have timed nothing; tune="off" goes by the
    tables that are shipped, so that it chooses the same everywhere. It is kept beside the timings, for this CPU, kernel
    level and version.

    Example: secateur calibrate
    """
    from secateur.engine import calibrate, plans, rates

    machine = plans.machine()
    if forget:
        there = rates.forget(machine)
        if json_:
            print_json({"machine": machine, "forgotten": there})
        else:
            typer.echo(f"{rates.path()}: {'forgot' if there else 'knew nothing of'} {machine}")
        return
    need("calibrate", "compress", "onnx")
    begin = time.monotonic()
    with progress.shown(False if quiet else None, "", "lines") as report:

        def told(done: int, total: int) -> None:
            if report is not None:
                report(Progress("calibrate", done, total, time.monotonic() - begin))

        found = calibrate.measured(told)
    rates.keep(machine, found)
    if json_:
        print_json({"machine": machine, "rates": found})
    else:
        said = f"layers take {found['']:.2f} of what the model says, by kernel and kind in {len(found)} rates"
        typer.echo(f"{rates.path()}: {machine}: {said}")
