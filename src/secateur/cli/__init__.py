"""The command line: one file per sub-command; parse, call api, print. `main` maps errors to exit codes.

Exit codes: 0 done; 1 a check or budget failed; 2 the input is wrong; 3 interrupted, resumable; 4 the environment
failed; 70 our bug.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from secateur import __version__, waiting
from secateur.errors import HandedOverWarning, SecateurError
from secateur.importing import place, told

COMMANDS = ("compress", "inspect", "plan", "bench", "verify", "run", "pack", "unpack", "report", "methods", "reproduce")


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"secateur {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The typer application with every sub-command of this folder."""
    app = typer.Typer(
        name="secateur",
        help="Compress neural networks so that they are really smaller and really faster, with proof.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        pass

    for name in COMMANDS:
        module = importlib.import_module(f"secateur.cli.{name}")
        app.command(name)(module.command)
    return app


def main(argv: list[str] | None = None) -> None:
    """Entry point. Every failure is one clear message on stderr and the pinned exit code."""
    waiting.passive()  # before any command imports torch
    sys.exit(_main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", HandedOverWarning)
            warnings.showwarning = _say(warnings.showwarning)
            build()(args=argv, standalone_mode=False, prog_name="secateur")
        sys.stdout.flush()
        return 0
    except SecateurError as e:
        return _fail(str(e), e.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 3)
    except MemoryError:
        return _fail("out of memory; use a smaller model, batch or thread count", 4)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            return _fail(f"{e.filename or 'writing'}: {e.strerror}; free some space or choose another folder", 4)
        if e.errno in (errno.EACCES, errno.EPERM):
            return _fail(f"{e.filename}: {e.strerror}; check the permissions or choose another folder", 4)
        if e.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
            return _fail(f"{e.filename}: {e.strerror}; give the path of an existing file", 2)
        return _bug()
    except Exception as e:
        code = _usage(e)
        if code is None and place(e):
            return _fail(f"your own code failed: {told(e)}; the model and the data must work without secateur", 2)
        return _bug() if code is None else code


def _say(show: Callable[..., None]) -> Callable[..., None]:
    """What runs in another runtime is a plain line, once; other warnings look as ever."""
    said: set[str] = set()

    def line(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if not issubclass(category, HandedOverWarning):
            show(message, category, *args, **kwargs)
        elif str(message) not in said:
            said.add(str(message))
            print(f"secateur: {message}", file=sys.stderr)

    return line


def _usage(error: Exception) -> int | None:
    """Exit code of typer's own errors (wrong options, --help's Exit), or None when it is none of them."""
    if type(error).__name__ in ("Exit", "Abort") and hasattr(error, "exit_code"):
        return int(error.exit_code)
    if type(error).__name__ == "Abort":
        return _fail("interrupted", 3)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's UsageError family
        context = getattr(error, "ctx", None)
        where = f"; see `{context.command_path} --help`" if context is not None else ""
        return _fail(error.format_message().rstrip(".") + where, 2)
    return None


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"secateur: {message}", file=sys.stderr)
    return code


def _bug() -> int:
    handle, name = tempfile.mkstemp(prefix="secateur-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as log:
        log.write(f"secateur {__version__}, arguments {sys.argv[1:]}\n\n{traceback.format_exc()}")
    last = traceback.format_exc().strip().splitlines()[-1]
    return _fail(f"internal error, this is our bug: {last}; the traceback is in {Path(name)}, please report it", 70)
