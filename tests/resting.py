"""Coverage's tracer rests while torch captures a network: hundreds of thousands of torch's own lines, none of ours.

Under Python 3.11's tracing an export takes twice its time, and exports are half of a small run. What such a call
reaches of src (the `forward` of a network of the zoo) others reach with the tracer on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any


def rest() -> None:
    """From here on, in this process."""
    import torch

    torch.export.export = rested(torch.export.export)
    program = torch.export.ExportedProgram
    program.run_decompositions = rested(program.run_decompositions)  # type: ignore[method-assign]


def rested(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, without the tracer that runs when it is made."""

    @functools.wraps(call)
    def untraced(*args: Any, **kwargs: Any) -> Any:
        tracer = sys.gettrace()
        if tracer is None:
            return call(*args, **kwargs)
        sys.settrace(None)
        try:
            return call(*args, **kwargs)
        finally:
            sys.settrace(tracer)

    return untraced
