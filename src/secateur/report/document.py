"""A page: one self-contained file that needs no network, with plots that follow its light and dark theme.

Everything that comes from the user's model (layer names, paths, recipe) is data: escaped in the markup, escaped again
for the plots, and a content security policy in the page forbids anything from outside.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from secateur.errors import MissingExtraError
from secateur.report.figure import Figure

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
_LOGO = (
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" '
    'aria-hidden="true"><circle cx="6" cy="18" r="3"/><circle cx="18" cy="18" r="3"/>'
    '<path d="M8 16 17 3M16 16 7 3"/></svg>'
)


def page(title: str, body: str, figures: Mapping[str, Figure], version: str, numbers: str) -> str:
    """The whole page as text.

    Args:
        title: plain text. body: markup of `section`s. figures: by element id, those that the body shows.
        version: of the package. numbers: the file that holds them.
    Raises:
        MissingExtraError: plotly is not installed.
    """
    folder = files("secateur.report") / "page"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="generator" content="Secateur">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{(folder / "style.css").read_text("utf-8")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<div class="bar"><div><span class="mark">{_LOGO} Secateur</span>{_navigation(body)}
<button id="theme" type="button">Dark</button></div></div>
<main id="main">
{body}
</main>
<footer>Written by Secateur {escape(version)}. One file, no
network: it can be mailed and archived. Numbers: {escape(numbers)} beside it.</footer>
<script type="application/json" id="figures">{_json(figures)}</script>
<script type="text/plain" id="plotly">{_plotly()}</script>
<script>
{(folder / "app.js").read_text("utf-8")}</script>
</body>
</html>
"""


def section(key: str, title: str, content: str, hint: str = "") -> str:
    """A section of the page; `content` is markup, the rest plain text."""
    note = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return (
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{escape(title)}</h2>{note}{content}</section>'
    )


def figure(figure: Figure | None, wide: bool = False) -> str:
    """The place of a plot; nothing for None."""
    if figure is None:
        return ""
    title, text = escape(figure.title), escape(figure.text)
    return (
        f'<figure class="panel{" wide" if wide else ""}"><figcaption>{title}</figcaption>'
        f'<div class="plot" id="plot-{figure.name}" role="img" aria-label="{title}: {text}" '
        f'style="min-height:{figure.height}px">{text}</div></figure>'
    )


def facts(items: Iterable[tuple[str, str]], more: str = "") -> str:
    """A panel of facts; labels are escaped here, values must be already."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in items)
    return f'<div class="panel"><dl>{rows}</dl>{more}</div>'


_SHORT = {"where": "Bytes"}  # titles too long for the bar


def _navigation(body: str) -> str:
    heads = re.findall(r'<section id="([^"]+)"[^>]*><h2[^>]*>(.*?)</h2>', body)
    links = (f'<a href="#{key}">{_SHORT.get(key, title)}</a>' for key, title in heads)
    return f'<nav aria-label="Sections">{"".join(links)}</nav>'


@cache
def _plotly() -> str:
    """plotly.js of the installed plotly package: gzip, base64. Read from its file, because importing plotly is slow."""
    spec = importlib.util.find_spec("plotly")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.is_file():
            return base64.b64encode(gzip.compress(path.read_bytes(), 9, mtime=0)).decode("ascii")
    raise MissingExtraError("report: plotly is not installed; pip install 'secateur[report]'")


def _json(figures: Mapping[str, Figure]) -> str:
    """The plots as JSON that cannot end its script element or open a comment in it."""
    specs: dict[str, dict[str, Any]] = {}
    for name, f in figures.items():
        specs[name] = {"data": f.data, "layout": f.layout, "height": f.height}
        if f.narrow is not None:
            specs[name]["narrow"] = {"layout": f.narrow[0], "height": f.narrow[1]}
    text = json.dumps(specs, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
