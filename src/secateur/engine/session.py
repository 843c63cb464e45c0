"""Run a model: `.onnx` or `.sct`, in the habits of ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from secateur.engine import _native
from secateur.errors import FormatError, UsageError


def isas() -> tuple[str, ...]:
    """The kernel levels this machine can run, slowest first; `SECATEUR_ISA` takes one of them."""
    return tuple(_native.isas())


def read_model(path_or_bytes: str | os.PathLike[str] | bytes | bytearray | memoryview) -> bytes:
    """The bytes of a model given as a path or as bytes.

    Raises:
        UsageError: no such file, a folder, or something that is neither a path nor bytes.
    """
    if isinstance(path_or_bytes, bytes):
        return path_or_bytes
    if isinstance(path_or_bytes, (bytearray, memoryview)):
        return bytes(path_or_bytes)
    if not isinstance(path_or_bytes, (str, os.PathLike)):
        raise UsageError(
            f"model: got {type(path_or_bytes).__name__}; pass the path of an .onnx or .sct file, or its bytes"
        )
    path = Path(path_or_bytes)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; pass the path of an .onnx or .sct file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; pass the path of an .onnx or .sct file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


class InferenceSession(_native.Session):
    """A model ready to run on the CPU.

    Reads ONNX (opset 11 to 23) and `.sct`, plans once per set of input shapes, and runs zeros at no cost where that is
    faster. Any number of Python threads may call `run` at the same time; the GIL is released while the network runs.

    Args:
        path_or_bytes: path of an `.onnx` or `.sct` file, or its bytes.
        threads: threads of one run, >= 1; None takes all CPUs the process may use. Layers below some 20 microseconds
            run on the caller's thread whatever is asked.

    Raises:
        UsageError: the file cannot be read, or `threads` is not a positive integer.
        FormatError: the file is damaged, truncated or not a model; `.offset` is the byte where reading stopped.
        UnsupportedError: the model needs an operator or feature the engine does not have; the message names the node.
    """

    def __init__(self, path_or_bytes: str | os.PathLike[str] | bytes, threads: int | None = None) -> None:
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024
        ):
            raise UsageError(f"threads: got {threads!r}; it must be an integer from 1 to 1024, or None")
        data = read_model(path_or_bytes)
        try:
            super().__init__(data, threads or 0)
        except FormatError as error:
            if isinstance(path_or_bytes, (str, os.PathLike)):
                raise _named(error, path_or_bytes) from None
            raise

    def explain(self, batch: int = 1, repeats: int = 30) -> list[dict[str, Any]]:
        """What runs, layer by layer: kernel, why it was chosen, what was found in the weights, time.

        Args:
            batch: size given to free dimensions.
            repeats: timed runs per layer on a fixed pseudo-random input; 0 leaves `time_us` None.
        Returns:
            One dict per step in order of execution: node, op, kernel, why, input, output, weight (shapes), macs,
            n_weights, nnz, density, packed_nbytes, time_us (median, microseconds).
        """
        if batch < 1 or repeats < 0:
            raise UsageError(f"explain(): batch={batch}, repeats={repeats}; batch must be >= 1 and repeats >= 0")
        rows: list[dict[str, Any]] = self._explain(batch, repeats)
        return rows


def _named(error: FormatError, path: str | os.PathLike[str]) -> FormatError:
    """The same error with the file's name in front."""
    named = FormatError(f"{os.fspath(path)}: {error}")
    named.offset = error.offset
    return named
