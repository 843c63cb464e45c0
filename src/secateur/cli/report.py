"""`secateur report DIR`: rebuild report.html from report.json."""

from __future__ import annotations

from pathlib import Path

import typer

from secateur.cli._extras import need


def command(folder: Path = typer.Argument(..., metavar="DIR", help="A run's folder with report.json.")) -> None:
    """Rebuild report.html from report.json and print the before/after table.

    Example: secateur report runs/lenet5
    """
    need("report", "report", "plotly")
    from secateur.report import html, records, tables

    record = records.read(folder)
    page = html.write(folder, record)
    tables.print_summary(record)
    typer.echo(f"\nreport: {page.resolve()}")
