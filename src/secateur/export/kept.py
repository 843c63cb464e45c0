"""The graph that an export gave, kept without its weights: a plan of the same net does not export it again.

Kept beside the tables of the machine's times, one file for each net: its traced calls, shapes and constants, not its
weights. For plans alone, which hand no file out: two nets of one trace can differ in whether their batch may be free.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from secateur.shell import saving
from secateur.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from secateur.graph import Example, Traced

Array = np.ndarray[Any, Any]
_TURNED = ".T"


def exported(module: nn.Module, traced: Traced, example: Example, export: Callable[[], bytes]) -> bytes:
    """The `.onnx` file of `module`: what `export` answers, now or when it was last asked of such a net."""
    import onnx

    path = saving.cache_folder() / "graphs" / f"{_key(module, traced, example)}.onnx"
    state = {k: v.detach().cpu().contiguous().numpy() for k, v in module.state_dict().items()}
    if path.is_file():
        with suppress(Exception):  # a damaged file: whatever protobuf says of it
            return _filled(onnx.load_model_from_string(path.read_bytes()), state)
    data = export()
    bare = _bare(onnx.load_model_from_string(data), state)
    if bare is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        saving.write_bytes(path, bare)
    return data


def _bare(model: Any, state: dict[str, Array]) -> bytes | None:
    """Without its weights; None where others than those under their own names may be in it."""
    for t in model.graph.initializer:
        if t.name.removesuffix(_TURNED) in state:
            t.ClearField("raw_data")
            t.ClearField("float_data")
        elif t.data_type in _FLOATS and len(t.dims):
            return None  # maybe computed from weights
    nested = any(a.HasField("g") or a.graphs for n in model.graph.node for a in n.attribute)
    return None if nested or model.functions else bytes(model.SerializeToString(deterministic=True))


_FLOATS = (1, 10, 11, 16)  # float32, float16, float64, bfloat16


def _filled(model: Any, state: dict[str, Array]) -> bytes:
    from onnx import numpy_helper

    for t in model.graph.initializer:
        name = t.name.removesuffix(_TURNED)
        if name in state:
            value = state[name] if t.name == name else np.ascontiguousarray(state[name].T)
            assert list(t.dims) == list(value.shape)
            t.CopyFrom(numpy_helper.from_array(value, t.name))
    return bytes(model.SerializeToString(deterministic=True))


def _key(module: nn.Module, traced: Traced, example: Example) -> str:
    program, found = traced.program, hashlib.sha256()

    def add(*facts: Any) -> None:
        found.update(repr(facts).encode())

    add(torch.__version__, __version__, _code(), example.dynamic, example.batched, program.inputs)
    add([(k, v.__module__, v.__qualname__) for k, v in program.kinds.items()], program.params, program.buffers)
    add([(k, t.dtype, tuple(t.shape)) for k, t in module.state_dict().items()])
    add([(tuple(t.shape), t.dtype) for t in torch.utils._pytree.tree_leaves(example.inputs) if isinstance(t, Tensor)])
    add(list(inspect.signature(module.forward).parameters), sorted(program.frozen))
    for n in program.nodes:
        args, kwargs = fx.node.map_arg((n.args, n.kwargs), str)
        add(n.name, n.op, str(n.target), args, kwargs)
    for name, t in program.static.items():
        add(name, t.dtype, tuple(t.shape), t.cpu().tolist())
    return found.hexdigest()[:32]


def _code() -> str:
    """Of the exporter's own files: one version's graphs are no other's."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
