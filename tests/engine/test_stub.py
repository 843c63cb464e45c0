"""The typed stub and the native module name the same things."""

import ast
from pathlib import Path

from secateur import native
from secateur.native import _native


def test_stub_names_what_the_module_has() -> None:
    stub = ast.parse(Path(native.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
    declared: dict[str, set[str]] = {}
    for item in stub.body:
        if isinstance(item, ast.ClassDef):
            declared[item.name] = {f.name for f in item.body if isinstance(f, ast.FunctionDef)}
        elif isinstance(item, ast.FunctionDef):
            declared[item.name] = set()
    public = {name for name in dir(_native) if not name.startswith("__")}
    assert set(declared) == public
    for name, members in declared.items():
        have = (
            {m for m in dir(getattr(_native, name)) if not m.startswith("__") or m == "__init__"} if members else set()
        )
        assert members <= have | {"__init__"}, name
        if members:
            assert {m for m in have if not m.startswith("__")} <= members, name
