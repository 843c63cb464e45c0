"""The exceptions. Every message says: subject, what came, what is needed, what to do."""

from __future__ import annotations

from typing import Any


class SecateurError(Exception):
    """Base of all errors a user can cause or meet. `exit_code` is what the command line answers."""

    exit_code = 2


class UsageError(SecateurError):
    """An argument, a recipe key or a file that the user named is wrong."""


class ConstraintError(SecateurError):
    """A tensor does not fit a constraint (shape, NaN) or a level is not on its menu."""


class RefusedError(UsageError):
    """A method does not go with what it was named for: a solver that cannot act on a set."""


class FormatError(SecateurError):
    """A file is damaged, truncated or not of the format. `offset` is the byte where reading stopped."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


class UnsupportedError(SecateurError):
    """A valid request that is not covered; names the node or key and the nearest supported choice.

    `node` is the name of the graph's node in the way, None where there is none.
    """

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class MissingExtraError(SecateurError):
    """A command needs an optional dependency; the message says which extra to install."""


class CheckError(SecateurError):
    """A verification failed."""

    exit_code = 1


class BudgetError(CheckError):
    """The budget cannot be met. `smallest` is the nearest reachable value of `kind`, `site` what stands in the way.

    `kind` is None where limits that can be met alone cannot be met together.
    """

    def __init__(
        self, message: str, smallest: float | None = None, site: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.smallest = smallest
        self.site = site
        self.kind = kind


class RecordError(CheckError):
    """The network is finished and saved, its record could not be made. `result` holds the network and its files."""

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


class DivergedError(CheckError):
    """Training produced NaN or infinite values."""


class InterruptedRun(SecateurError):
    """The run was interrupted (Ctrl-C, SIGTERM); the message says whether a checkpoint lets it go on."""

    exit_code = 3


class EnvironmentFailure(SecateurError):
    """Disk full, no memory, folder not writable."""

    exit_code = 4


class HandedOverWarning(UserWarning):
    """Some nodes of a model run in another runtime than the engine; the text names them."""


def first_line(e: BaseException) -> str:
    """The first line of somebody else's error that says something, or its kind."""
    lines = [line for line in str(e).splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else type(e).__name__


def check_finite(weight: Any, subject: str) -> None:
    """Raise ConstraintError when a tensor holds NaN or infinity."""
    # One such value makes the sum one, and a sum is found in a tenth of the time; a large sum alone may overflow.
    if not bool(weight.sum().isfinite()) and not bool(weight.isfinite().all()):
        bad = int((~weight.isfinite()).sum())
        raise ConstraintError(
            f"{subject} {list(weight.shape)}: {bad} values are NaN or infinite; finite weights are needed; "
            "check the training that made this model"
        )
