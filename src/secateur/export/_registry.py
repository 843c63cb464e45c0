"""What torch's exporter makes anew for every export, made once: its table of ONNX forms, its list of operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_known: dict[tuple[Any, ...], Any] = {}


@contextmanager
def made_once() -> Iterator[None]:
    """Inside, torch's exporter does not repeat what is the same for every export or all through one.

    The places are private to torch. Where a release has moved one, exports take as long as torch's own.
    """
    with _forms(), _operators():
        yield


@contextmanager
def _forms() -> Iterator[None]:
    """The table of ONNX forms is a copy of an earlier export's (0.3 s of 0.5 for a small network)."""
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


@contextmanager
def _operators() -> Iterator[None]:
    """The dispatcher's operators are looked up once, not for each of 27 namespaces twice (0.1 s of 0.3).

    Once for each export: an operator that was registered between two is seen by the second.
    """
    try:
        from torch._export import utils

        plain = utils._materialize_cpp_cia_ops
    except (ImportError, AttributeError):
        yield
        return
    looked_up: list[None] = []

    def once() -> None:
        if not looked_up:
            looked_up.append(plain())

    utils._materialize_cpp_cia_ops = once
    try:
        yield
    finally:
        utils._materialize_cpp_cia_ops = plain
