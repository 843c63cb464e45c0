"""Run code in double precision although it names other float types itself: `x.float()`, `x / 255` of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_NARROWER = (torch.float32, torch.float16, torch.bfloat16)


class _Widen(TorchDispatchMode):
    """Every float type that a call names becomes double."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if isinstance(value, torch.dtype) and value in _NARROWER else value

        return func(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


@contextmanager
def in_double() -> Iterator[None]:
    """Inside: tensors that code makes or casts are double, whatever float type it asks for.

    Given double weights and inputs, all arithmetic is in double then, so that two ways to compute the same differ far
    less than a threshold in the code (a spike, a comparison) could turn into a different answer.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen():
            yield
    except Exception as e:
        # Code that compiles itself (torch.cond) remembers what failed under the mode, and fails without it then. Other
        # code is left alone: the user's own compiled functions would all be compiled anew.
        if any(f.f_globals.get("__name__", "").startswith("torch._dynamo") for f, _ in walk_tb(e.__traceback__)):
            torch._dynamo.reset()
        raise
    finally:
        torch.set_default_dtype(before)
