"""One question, one room: the rooms stand on floors, nothing looks up, and the light ones import without torch."""

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from walk import walk

SRC = Path(__file__).parent.parent / "src" / "secateur"
# From the ground up. A file imports its own room, the bottom, and rooms that stand before its own; rooms on one floor
# do not know each other. The front (`secateur/__init__.py`) loads lazily.
BOTTOM = {"types", "errors", "catalog", "curves", "schedules", "version", "limits"}
FLOORS = (
    {"contracts"},
    {"shell"},
    {"native"},
    {"formats"},
    {"engine"},
    {"constraints", "saliencies", "objectives", "terms", "data"},
    {"solvers", "zoo", "budget"},
    {"recipe", "report"},
    {"training", "graph"},
    {"export"},
    {"testing"},
    {"run", "post_training"},
    {"proof"},
    {"api"},
    {"reproduce", "integrations"},
    {"cli"},
)
ROOMS = {room: i for i, floor in enumerate(FLOORS) for room in floor}
FRONT = {"__init__", "__main__"}


def imports(path: Path) -> set[str]:
    """Rooms, or modules of the bottom, that a file imports, for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "secateur":
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("secateur.")]
        found |= {n.split(".")[1] for n in names}
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_nothing_looks_up(path: Path) -> None:
    room = path.relative_to(SRC).parts[0].removesuffix(".py")
    if room in FRONT:
        return
    below = {name for name, floor in ROOMS.items() if room in ROOMS and floor < ROOMS[room]}
    allowed = BOTTOM | below | ({room} if room in ROOMS else set())
    assert imports(path) <= allowed, f"{path}: may import {sorted(allowed)}"


def test_every_file_has_a_room() -> None:
    loose = {p.stem for p in SRC.glob("*.py")} - FRONT
    assert loose == BOTTOM
    assert len(loose) <= 8
    rooms = {p.name for p in SRC.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms == ROOMS.keys()


def test_no_circle_inside_a_room() -> None:
    """Files of one room import each other in one direction, lazily or not."""
    modules = {".".join(p.relative_to(SRC).with_suffix("").parts): p for p in SRC.rglob("*.py")}
    modules = {name: path for name, path in modules.items() if name not in FRONT}
    edges = {name: _targets(path, modules) - {name} for name, path in modules.items()}
    left = dict(edges)
    while ends := [name for name, to in left.items() if not to & left.keys()]:
        for name in ends:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def _targets(path: Path, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("secateur."):
            base = node.module.removeprefix("secateur.")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found |= {whole} if whole in modules else {base} if base in modules else {f"{base}.__init__"}
    return found & modules.keys()


def test_a_net_is_not_sent_to_and_fro() -> None:
    """What a reader must follow: see walk.py, which prints the stays."""
    found = walk()
    assert len(found.stays) >= 20
    assert found.returns <= 25


def test_files_and_functions_stay_short() -> None:
    """A file is one subject, a function one thought; the docstring of a function is not counted."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SRC.rglob("*.py")}
    assert median(lines.values()) <= 100
    sources = [p for p in (SRC.parent.parent / "engine").rglob("*") if p.suffix in (".cc", ".h")]
    lines_too = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert not {str(p): n for p, n in {**lines, **lines_too}.items() if n > 450}
    long = {}
    for path in lines:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = node.body[0] if ast.get_docstring(node) else None
                n = node.end_lineno - node.lineno + 1 - (said.end_lineno - said.lineno + 1 if said else 0)
                if n > 60:
                    long[f"{path}:{node.name}"] = n
    assert not long


HEAVY = ["torch", "onnx", "onnxscript", "onnxruntime", "pydantic", "yaml", "plotly", "safetensors"]
LIGHT_ROOMS = "types", "contracts", "catalog", "formats", "engine", "cli", "report"
LIGHT = ["secateur", *(f"secateur.{room}" for room in LIGHT_ROOMS)]


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
