"""The page in a real headless Chromium: no console message, every plot drawn, theme and sorting work, no overflow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import report_sample as sample

from secateur.report import html

BROWSER = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
]
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
    "--enable-logging=stderr",
    "--dump-dom",
]
# Runs in the page after the plots: presses the buttons and writes down what it sees.
PROBE = """
<script>
(async () => {
  while (!document.documentElement.dataset.plots) await new Promise((r) => setTimeout(r, 20));
  const out = {};
  const before = document.documentElement.dataset.theme;
  const ink = () => document.querySelector(".plot .main-svg text")?.style.fill;
  const first = ink();
  document.getElementById("theme").click();
  await new Promise((r) => setTimeout(r, 300));
  out.themeChanged = document.documentElement.dataset.theme !== before;
  out.plotsFollow = ink() !== first;
  const table = document.querySelector("table.sortable");
  if (table) {
    const column = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.trim() === "Nonzeros");
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    const read = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[column].dataset.value));
    button.click();
    out.down = read();
    button.click();
    out.up = read();
  }
  out.overflow = document.documentElement.scrollWidth - window.innerWidth;
  out.wider = [...document.querySelectorAll(".plot")].filter((p) => p.scrollWidth > p.clientWidth + 1).map((p) => p.id);
  out.cut = [...document.querySelectorAll(".plot")].filter((p) => {
    const edge = (e) => e.getBoundingClientRect().right;
    const own = p.querySelector(".main-svg");
    return own && edge(own) > edge(p.closest(".panel"));
  }).map((p) => p.id);
  out.title = document.title;
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(out);
  document.body.append(place);
})();
</script>
"""


def load(page: str, folder: Path, width: int = 1400) -> tuple[str, list[str]]:
    """The page's final DOM, and every message that its console got."""
    file = folder / "page.html"
    file.write_text(page, "utf-8")
    done = subprocess.run(
        [str(BROWSER), *OPTIONS, f"--window-size={width},1200", f"--user-data-dir={folder / 'profile'}", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,  # seconds; a busy machine starts a browser slowly
        check=False,
    )
    assert done.stdout, f"the browser gave nothing: {done.stderr[-2000:]}"
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_check_itself_notices_errors(tmp_path: Path) -> None:
    _, console = load("<script>throw new Error('on purpose')</script>", tmp_path)
    assert any("on purpose" in line for line in console)
    policy = re.search(r"<meta http-equiv[^>]*>", html.render(sample.minimal())).group(0)
    _, console = load(policy + "<img src='https://example.invalid/x.png'>", tmp_path)
    assert any("Content Security Policy" in line for line in console), "the page's policy must forbid the network"


@pytest.mark.parametrize(
    ("make", "width", "plots"),
    [(sample.lenet5, 1400, 7), (sample.lenet5, 390, 7), (sample.deep, 390, 5), (sample.minimal, 1400, 0)],
)
def test_page_loads_without_a_console_message(make, width: int, plots: int, tmp_path: Path) -> None:
    dom, console = load(html.render(make()).replace("</body>", PROBE + "</body>"), tmp_path, width)
    assert console == []
    assert 'data-plots="drawn"' in dom
    assert len(re.findall(r'id="plot-\w+" [^>]*class="[^"]*drawn|class="plot[^"]* drawn[^"]*" id="plot-', dom)) == plots
    assert len(re.findall(r'class="main-svg"[^>]*>', dom)) >= plots
    seen = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert seen, "the page's buttons did not answer"
    assert '"themeChanged":true' in seen.group(1)
    overflow = int(re.search(r'"overflow":(-?\d+)', seen.group(1)).group(1))
    assert overflow <= 0, f"the page is {overflow} pixels wider than a window of {width}"
    assert '"wider":[],"cut":[]' in seen.group(1), "a plot is wider than its place"
    if plots:
        assert '"plotsFollow":true' in seen.group(1)
        down = [int(n) for n in re.search(r'"down":\[([\d,]+)\]', seen.group(1)).group(1).split(",")]
        up = [int(n) for n in re.search(r'"up":\[([\d,]+)\]', seen.group(1)).group(1).split(",")]
        assert down == sorted(down, reverse=True)
        assert up == sorted(up)


def test_hostile_names_run_nothing_in_the_browser(tmp_path: Path) -> None:
    evil = (
        "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script><b>bold</b>%{x}"
    )
    record = sample.lenet5()
    record |= {"model": evil, "notes": [evil]}
    for item in (*record["layers"], *record["sections"]):
        item["name"] = evil
    for row in record["history"]:
        row["stage"] = evil
    dom, console = load(html.render(record).replace("</body>", PROBE + "</body>"), tmp_path)
    assert console == []
    assert 'data-plots="drawn"' in dom
    seen = re.search(r'<pre id="probe">(.*?)</pre>', dom).group(1)
    assert '"title":"owned"' not in seen
    assert "<img src" not in dom.replace("&lt;img src", "")
