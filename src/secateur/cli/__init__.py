"""The command line: one file per sub-command; parse, call api, print. `main` maps errors to exit codes.

Exit codes: 0 done; 1 a check or budget failed; 2 the input is wrong; 3 interrupted, resumable; 4 the environment
failed; 70 our bug.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from secateur.errors import HandedOverWarning, InterruptedRun, SecateurError
from secateur.shell import interrupts, waiting
from secateur.shell.importing import place, told
from secateur.version import __version__

if TYPE_CHECKING:
    import typer

COMMANDS = (
    *("compress", "quantize", "plan", "sites", "verify", "inspect", "bench", "run"),
    *("pack", "unpack", "report", "methods", "reproduce", "sweep", "latency", "calibrate"),
)


def build() -> typer.Typer:
    """The typer application with every sub-command of this folder."""
    import typer

    def show_version(shown: bool) -> None:
        if shown:
            typer.echo(f"secateur {__version__}")
            raise typer.Exit

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
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        pass

    for name in COMMANDS:
        module = importlib.import_module(f"secateur.cli.{name}")
        app.command(name)(module.command)
    return app


def main(argv: list[str] | None = None) -> None:
    """Entry point. Every failure is one clear message on stderr and the pinned exit code."""
    interrupts.catch()  # before anything large is imported
    waiting.passive()  # before any command imports torch
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no error
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    failed: BaseException | None = None
    code = 0
    try:
        code = _run(argv)
    except BaseException as e:
        failed = e
    if interrupts.came() or code == _SIGINT:
        failed = failed if isinstance(failed, InterruptedRun) else KeyboardInterrupt()
    interrupts.ignore()
    return code if failed is None else _answer(failed)


_SIGINT = 130  # what typer returns for an interrupt


def _run(argv: list[str]) -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always", HandedOverWarning)
        warnings.showwarning = _say(warnings.showwarning)
        code = build()(args=argv, standalone_mode=False, prog_name="secateur")
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _answer(error: BaseException) -> int:
    """The exit code of what ended a command, and its message on stderr."""
    if isinstance(error, SecateurError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail("interrupted", 3)
    if isinstance(error, MemoryError):
        return _fail("out of memory; use a smaller model, batch or thread count", 4)
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # of rich: SystemExit(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        return _answer_os(error)
    code = _usage(error)
    if code is None and place(error):
        return _fail(f"your own code failed: {told(error)}; the model and the data must work without secateur", 2)
    return _bug(error) if code is None else code


def _answer_os(e: OSError) -> int:
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return _fail(f"{e.filename or 'writing'}: {e.strerror}; free some space or choose another folder", 4)
    if e.errno in (errno.EACCES, errno.EPERM):
        return _fail(f"{e.filename}: {e.strerror}; check the permissions or choose another folder", 4)
    if e.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
        return _fail(f"{e.filename}: {e.strerror}; give the path of an existing file", 2)
    return _bug(e)


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


def _usage(error: BaseException) -> int | None:
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


def _bug(error: BaseException) -> int:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="secateur-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"secateur {__version__}, arguments {sys.argv[1:]}\n\n{text}")
    last = text.strip().splitlines()[-1]
    return _fail(f"internal error, this is our bug: {last}; the traceback is in {name}, please report it", 70)
