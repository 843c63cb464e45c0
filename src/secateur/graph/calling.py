"""Calling a user's model: its inputs, evaluation without a trace, and where in the user's code it failed."""

from __future__ import annotations

import contextlib
import linecache
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError, first_line

_LIBRARY = (str(Path(torch.__file__).parent), str(Path(__file__).resolve().parents[1]), "<")


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors inside a nest of tuples, lists and dicts, in order."""
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How example inputs are passed: a tuple or list as positions, a mapping as keywords, else one position."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside: every module in eval mode, no gradients. Afterwards modes, buffers and the random state are as before."""
    modes = [(m, m.training) for m in model.modules()]
    scripted = torch.jit.ScriptModule  # has no dictionary of its own
    # A forward may also put a new tensor in place.
    slots = [(m, dict(m._buffers)) for m in model.modules() if not isinstance(m, scripted)]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        for m, _ in modes:
            m.training = False  # not .eval(): a model may override it
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        for m, before in slots:
            m._buffers.update(before)
        with torch.no_grad():
            for b, value in buffers:
                if not torch.equal(b, value):
                    b.copy_(value)


def run_eagerly(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The model's answer; UsageError with the place in the user's code when it fails."""
    try:
        return model(*args, **kwargs)
    except Exception as e:
        given = ", ".join(str(list(t.shape)) for t in tensors_of((args, kwargs)))
        raise UsageError(
            f"{type(model).__name__} does not run on example_inputs {given}: {first_line(e)}{user_frame(e)}; "
            "give inputs as one batch of the training data has them"
        ) from e


def user_frame(e: BaseException) -> str:
    """` (file.py:12: the line)` of the innermost frame that is neither torch's nor ours; empty if there is none."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if not f.filename.startswith(_LIBRARY)]
    frames = [f for f in frames if "site-packages/torch" not in f.filename and not f.filename.endswith("runpy.py")]
    if not frames:
        return ""
    f = frames[-1]
    code = (f.line or linecache.getline(f.filename, f.lineno or 0)).strip()
    return f" ({Path(f.filename).name}:{f.lineno}, in {f.name}: {code})"
