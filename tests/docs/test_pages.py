"""Pages that tell what the code has tell all of it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import yaml

from secateur import data
from secateur.budget import kinds
from secateur.recipe import Recipe, Training
from secateur.reproduce import plan

DOCS = Path(__file__).parents[2] / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_a_recipe_is_explained() -> None:
    page = read("guide/recipe.md")
    for key in [*Recipe.model_fields, *Training.model_fields, *data.NAMES]:
        assert f"`{key}`" in page, key


def test_every_kind_of_limit_is_explained() -> None:
    page = read("guide/budgets.md")
    for kind in kinds.known():
        assert f"| `{kind}` |" in page, kind


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*") if p.suffix in (".md", ".ipynb")]
    assert len(pages) > 20
    for page in pages:
        if not page.startswith("design/"):
            assert f": {page}\n" in menu, page


def test_the_notebook_is_the_tutorial() -> None:
    """Cell by cell, run from top to bottom without an error, by a Secateur that says what today's says."""
    notebook = script("notebook")
    book = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    asked = list(notebook.cells(notebook.PAGE.read_text(encoding="utf-8")))
    assert [(c["cell_type"], "".join(c["source"])) for c in book["cells"]] == asked
    code = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    kinds = {o["output_type"] for c in code for o in c["outputs"]}
    assert "stream" in kinds
    assert "error" not in kinds
    said = "".join(line for c in code for o in c["outputs"] for line in o.get("text", ()))
    assert "no `constrain` was given: a limit on nbytes takes [topk, codebook]" in said
    assert "calibration error" in said


def test_the_readme_follows_a_users_questions() -> None:
    """Use before numbers, internals on pages of their own."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    heads = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    asked = ["Install", "Make my net smaller", "Load it, ship it", "Budgets", "Which layers, which operators", "Int8"]
    assert heads[: len(asked)] == asked
    assert heads.index("Accuracy fell") < heads.index("Measured")


def test_the_recipes_of_the_pages_are_read() -> None:
    blocks = re.findall(r"```yaml.*?\n(.*?)```", "\n".join(p.read_text() for p in DOCS.rglob("*.md")), re.DOTALL)
    studies = [b for b in blocks if "parts:" in b]
    recipes = [b for b in blocks if "model:" in b and b not in studies]
    assert len(recipes) >= 2
    for text in recipes:
        Recipe.from_text(text)
    for text in studies:
        plan.checked("page", yaml.safe_load(text))
