"""What a user names: data sets and models of ours, or code as `package.module:attribute`, imported and called."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.errors import SecateurError, UsageError
from secateur.limits import QUOTED, quoted

ZOO = "secateur.zoo:"  # models that are code of ours begin so
DATA_SETS = (  # and these are the data sets
    *("digits", "mnist", "fashion_mnist", "cifar10", "cifar10_pretrained", "fsdd", "nmnist", "sst2", "shapes"),
    *("planetoid:cora", "planetoid:citeseer", "text:tiny_shakespeare", "text:war_and_peace"),
)


def is_data_path(name: str) -> bool:
    """Is it `package.module:function`, which names code, and no set of ours such as `text:war_and_peace`?"""
    return ":" in name and name.partition(":")[0] not in {n.partition(":")[0] for n in DATA_SETS}


def with_arguments(path: str, what: str) -> tuple[str, dict[str, Any]]:
    """`package.module:attribute(width=0.5)` as the path and the arguments: named ones, each a literal of Python.

    Raises:
        UsageError: anything else in the brackets.

    >>> with_arguments("my_package.nets:build(width=0.5, classes=10)", "model")
    ('my_package.nets:build', {'width': 0.5, 'classes': 10})
    """
    head, bracket, _ = path.partition("(")
    if not bracket:
        return path, {}
    try:
        call = ast.parse("f" + path[len(head) :], mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            found = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
            if None not in found:  # no `**`
                return head.rstrip(), {str(name): value for name, value in found.items()}
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        pass
    raise UsageError(
        f"{what} {quoted(path)}: in the brackets stand arguments by name with plain values, as {ZOO}resnet20(width=0.5)"
    )


def imported(path: str, what: str, example: str) -> Any:
    """The object at `path`; the working folder comes last among the places where it is looked for.

    Args:
        what: subject of the messages, such as `model`.
        example: a path that works, for the messages.
    Raises:
        UsageError: not an import path, nothing there, or the user's own code failed (with the file and line).
    """
    subject = f"{what} {quoted(path)}"
    module, colon, attribute = path.partition(":")
    if not (colon and module and attribute):
        raise UsageError(f"{subject}: give package.module:attribute, as {example}")
    _reach(module.partition(".")[0])
    try:
        loaded = found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise UsageError(
            f"{subject}: no module named {quoted(e.name)}; check the name, the folder and PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as e:
        raise UsageError(f"{subject}: importing {module[:QUOTED]} failed: {told(e)}") from e
    for part in attribute.split("."):
        if not hasattr(found, part):
            where = getattr(loaded, "__file__", None) or "built in"
            raise UsageError(f"{subject}: {module[:QUOTED]} ({where}) has no attribute {quoted(attribute)}")
        found = getattr(found, part)
    return found


def _reach(package: str) -> None:
    """Makes the working folder importable, after everything else and only for a name that is nowhere else.

    In front it would let a file there stand in for an installed package: whoever writes to a folder in which somebody
    runs a command would run code as them.
    """
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()


def called(made: Any, path: str, what: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """`made()`, with these arguments if any; UsageError with the file and line when the user's code fails."""
    try:
        return made(**(arguments or {}))
    except SecateurError:
        raise
    except (Exception, SystemExit) as e:
        raise UsageError(
            f"{what} {quoted(path)}: calling it failed: {told(e)}; "
            + (
                "does it take these arguments?"
                if arguments
                else "a function or class that needs no arguments is needed"
            )
        ) from e


def told(error: BaseException) -> str:
    """An exception of somebody else's code on one line, with the place: `ValueError: no (nets.py:12)`."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()[: 2 * QUOTED]}" if lines else type(error).__name__
    where = place(error)
    return f"{text} ({where})" if where else text


def place(error: BaseException) -> str:
    """`file.py:12` of the innermost frame that is neither ours, nor Python's, nor an installed package's, or ''."""
    ours, python = str(Path(__file__).parents[1]) + os.sep, os.path.dirname(os.__file__) + os.sep
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = frame.filename
        if not (name.startswith((ours, python, "<")) or "-packages" in name):
            return f"{Path(name).name}:{frame.lineno}"
    return ""
