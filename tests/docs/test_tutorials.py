"""The tutorials' code runs, page by page, as a reader would run it: Python in one session, commands in a shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "guide" / "quantize-my-net.md"]
BRIEF = (
    f"import runpy; runpy.run_path({str(DOCS.parent / 'tests' / 'brief.py')!r})['shorten']()"  # reports time briefly
)
SECATEUR = f"{BRIEF}; runpy.run_module('secateur', run_name='__main__')"
NEED_DATA = {"text", "audio"}
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pieces(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, title, code) of each block, in order."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2] or "", match[3]


def script(page: Path) -> str:
    """One Python program that does what the page says: files with a title are written, commands are run."""
    lines = ["import subprocess, sys", BRIEF]
    for language, title, code in pieces(page):
        if title:
            lines.append(f"open({title!r}, 'w').write({code!r})")
        elif language == "python":
            lines.append(code)
        elif language == "sh":
            for command in code.splitlines():
                words = shlex.split(command, comments=True)
                if not words:
                    continue
                assert words[0] == "secateur", f"{page.name}: only secateur's commands are run, not {command!r}"
                lines.append(f"subprocess.run([sys.executable, '-c', {SECATEUR!r}, *{words[1:]!r}], check=True)")
    return "\n".join(lines)


SLOW = ("vision", "text", "audio")  # they train on the real sets


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in PAGES]
)
def test_a_tutorial_runs(page: Path, tmp_path: Path) -> None:
    if page.stem in NEED_DATA and not os.environ.get("SECATEUR_DATA"):
        pytest.skip("SECATEUR_DATA is not set")
    (tmp_path / "page.py").write_text(script(page), encoding="utf-8")
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_every_tutorial_has_code_that_runs() -> None:
    assert {p.stem for p in PAGES} == {"vision", "text", "audio", "own-loop", "onnx-only", "report", "quantize-my-net"}
    for page in PAGES:
        assert any(language == "python" for language, _, _ in pieces(page)), page.name


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    """With a net and loaders of one's own, as the text says."""
    own = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.rand(512, 16)
y = (x[:, :8].sum(1) > x[:, 8:].sum(1)).long()
train = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 384, 64)]
valid = [(x[384:], y[384:])]
net = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2))
"""
    code = [c for language, _, c in pieces(DOCS.parent / "README.md") if language == "python"]
    assert len(code) == 2
    program = "\n".join([BRIEF, own, code[0], "x = x[:1].numpy()", code[1], "assert outputs[0].shape == (1, 2)"])
    (tmp_path / "readme.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
