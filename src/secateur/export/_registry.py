"""Torch's table of ONNX forms, made once: it is the same for every export, and making it takes longer than the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_known: dict[tuple[Any, ...], Any] = {}


@contextmanager
def made_once() -> Iterator[None]:
    """Inside, torch's exporter copies the table that an earlier export made (0.3 s of 0.5 for a small network).

    The place is private to torch. Where a release has moved it, exports take as long as torch's own.
    """
    try:
        from torch.onnx._internal.exporter import _registration

        table = _registration.ONNXRegistry
        plain = table.__dict__["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return

    def copied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        key = (cls, *args, *sorted(kwargs.items()))
        if key not in _known:
            _known[key] = plain.__func__(cls, *args, **kwargs)
        # An export adds translations of its own in front of these lists; the entries themselves do not change.
        made = cls()
        made.__dict__ |= _known[key].__dict__
        made.functions = {target: list(forms) for target, forms in _known[key].functions.items()}
        return made

    name = "from_torchlib"  # mypy forbids assigning to a method by its name
    setattr(table, name, classmethod(copied))
    try:
        yield
    finally:
        setattr(table, name, plain)
