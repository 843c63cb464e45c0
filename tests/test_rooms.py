"""One question, one room: who may import whom, and what imports without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "secateur"
BOTTOM = {
    *("types", "contracts", "errors", "catalog", "views", "schedules", "feasible", "saving", "curves", "importing"),
    *("runtimes", "waiting", "interrupts", "limits", "showing", "stored", "norms", "copying"),
}
# Root modules that tie rooms together; rooms never import them (but reproduce and cli do).
TIES = {
    *("api", "job", "search", "spending", "written", "record", "compressor", "planning", "plans", "bounds", "timing"),
    *("recipe", "defaults", "verify", "counts", "membership", "progress", "result", "naming"),
    *("cli", "reproduce", "testing", "__main__"),
}
ALLOWED = {
    "budget": {"formats", "engine"},
    "constraints": {"engine"},  # the native module: the inner loop of k-means is compiled
    "export": {"graph"},
    "engine": {"formats"},
    "formats": {"engine"},  # the native module lives in engine/; it holds the coder
    "training": {"solvers", "objectives", "engine"},  # the native module: how many CPUs there are
    "zoo": {"data"},
}


def imports(path: Path) -> set[str]:
    """Top-level names below `secateur` that a file imports at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "secateur":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("secateur.")}
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = path.relative_to(SRC).parts[0].removesuffix(".py")
    if room in TIES or room == "__init__":
        return
    allowed = BOTTOM | {room, "__version__"} | ALLOWED.get(room, set())
    assert imports(path) <= allowed, f"{path}: may import {sorted(allowed)}"


HEAVY = ["torch", "onnx", "onnxscript", "onnxruntime", "pydantic", "yaml", "plotly", "safetensors"]
ROOMS = "types", "contracts", "catalog", "formats", "engine", "cli", "report"
LIGHT = ["secateur", *(f"secateur.{room}" for room in ROOMS)]


@pytest.mark.parametrize("module", LIGHT)
def test_imports_without_torch_and_onnx(module: str) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import importlib
importlib.import_module({module!r})
from secateur.cli import build
build()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
