"""One compressed network in all its written forms: module, ONNX, `.sct`, safetensors and the recorded surgery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secateur import feasible, formats, graph, norms
from secateur.copying import copied
from secateur.errors import CheckError, FormatError, UnsupportedError, UsageError
from secateur.export import onnx as onnx_export
from secateur.importing import called, imported
from secateur.types import Term, Weights
from secateur.unwrapping import plain

if TYPE_CHECKING:
    from torch import nn

    from secateur.graph import Example, Traced

SURGERY = 1  # schema of surgery.json
DENSE = "dense.safetensors"  # of a run that trained its dense net itself


@dataclass(frozen=True)
class Written:
    """The forms of one network. `surgery` is the list of cuts that turn the original module into `module`."""

    module: nn.Module
    onnx: bytes
    sct: bytes
    surgery: list[dict[str, Any]]

    @property
    def tensors(self) -> bytes:
        """The safetensors file: parameters and buffers of `module`."""
        return tensors_of(self.module)

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Parameters and buffers of `module` by name."""
        return {k: v.detach().cpu().numpy() for k, v in self.module.state_dict().items()}


def tensors_of(module: nn.Module) -> bytes:
    """Parameters and buffers of a module as a safetensors file."""
    from safetensors.torch import save

    state = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in module.state_dict().items()}
    return bytes(save(state))


def smaller(
    model: nn.Module, traced: Traced, weights: Weights | None, may_cut: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """`graph.shrink`, or, where a set would not survive it (N:M groups shift), a copy with the weights as they are."""
    if may_cut:
        return graph.shrink(model, traced, weights)
    same = copied(model)
    if weights is not None:
        own = dict(same.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
    return same, {"version": 1, "edits": [], "biases": {}, "pads": []}


def write(
    model: nn.Module,
    traced: Traced,
    example: Example,
    weights: Weights | None = None,
    surgery: Sequence[dict[str, Any]] = (),
    may_cut: bool = True,
    terms: Sequence[Term] = (),
) -> Written:
    """Cut what no longer matters, export and pack; `model` is not changed.

    Weights of uniform levels are int8 codes and DequantizeLinear in the ONNX file. The `.sct` file holds these or the
    same values as floats on a grid, whichever is shorter (one scale a tensor: the grid saves the nodes; one a row:
    the codes win by far).

    Args:
        example: what is exported on; one example where the file has a fixed batch.
        weights: parameter name -> values to write; the model's own when left out.
        surgery: cuts that were already made on the way to `model`.
        may_cut: False keeps every channel (see `smaller`).
        terms: the sets that the weights are in; they know the scales.
    """
    small, cut = smaller(model, traced, weights, may_cut)
    small.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    scales = feasible.grids(terms, dict(small.named_parameters()))
    exported = norms.merged(exported_bytes(small, example, scales), constrained(terms))
    packed = [formats.pack(exported)] + ([formats.pack(onnx_export.dequantised(exported))] if scales else [])
    return Written(small, exported, min(packed, key=len), [*surgery, cut])


def constrained(terms: Sequence[Term]) -> set[str]:
    """Names of the parameters that a set acts on: they are written as they are."""
    return {m.param for t in terms for m in t.site.members}


def exported_bytes(module: nn.Module, example: Example, scales: Mapping[str, Any] | None = None) -> bytes:
    """The ONNX file, its batch axis free where that is asked for, or where torch's exporter can."""
    if example.dynamic is not False:
        try:
            return onnx_export.to_bytes(module, example.inputs, quantised=scales)
        except (UnsupportedError, CheckError):
            if example.dynamic:
                raise
    return onnx_export.to_bytes(module, example.one, dynamic_batch=False, quantised=scales)


def fixed_batch(onnx: bytes) -> int | None:
    """The only size of the first input's first axis that an ONNX file takes; None when it is free."""
    import onnx as onnx_package

    shape = onnx_package.load_model_from_string(onnx).graph.input[0].type.tensor_type.shape.dim
    return int(shape[0].dim_value) if shape and shape[0].HasField("dim_value") else None


@dataclass(frozen=True)
class Template:
    """An exported graph whose tensors can be exchanged: sizes of many candidates without exporting each.

    Exact as long as the cut changes tensor shapes only, which `write` settles in the end.
    """

    onnx: bytes

    def nbytes(self, module: nn.Module, terms: Sequence[Term] = ()) -> int:
        """Bytes of the `.sct` file with the tensors of `module`, which are in the sets of `terms`."""
        sct, beyond = self.packed(module, terms)
        return len(sct) + beyond

    def packed(self, module: nn.Module, terms: Sequence[Term] = ()) -> tuple[bytes, int]:
        """That file, and what the file of `write` takes beyond it."""
        import onnx as onnx_package
        from onnx import numpy_helper

        graph_of = onnx_package.load_model_from_string(self.onnx)
        state = {k: v.detach().cpu().contiguous().numpy() for k, v in module.state_dict().items()}
        state = norms.as_written(self.onnx, state)
        known = {i.name: i for i in graph_of.graph.initializer}
        for name, tensor in known.items():
            if name in state:
                tensor.CopyFrom(numpy_helper.from_array(state[name], name))
            elif name.removesuffix(".T") in state:
                turned = np.ascontiguousarray(state[name.removesuffix(".T")].T)
                tensor.CopyFrom(numpy_helper.from_array(turned, name))
        # A bias that folding made has no place in the template: its own coded size is added.
        made = sum(
            formats.measure(v).nbytes
            for k, v in state.items()
            if k not in known and k.endswith("bias") and v.dtype.kind == "f"
        )
        plain = graph_of.SerializeToString(deterministic=True)
        scales = feasible.grids(terms, dict(module.named_parameters()))
        packed = [formats.pack(plain)] + ([formats.pack(onnx_export.quantised(plain, scales))] if scales else [])
        return min(packed, key=len), made


def surgery_json(surgery: Sequence[dict[str, Any]], model: str | None) -> dict[str, Any]:
    """What `surgery.json` holds."""
    return {"schema": SURGERY, "model": model, "cuts": list(surgery)}


def rebuild(folder: Path, model: nn.Module | None = None, trust: bool = False) -> nn.Module:
    """The compressed module from a run's folder; the caller's `model` is copied, not changed.

    Args:
        trust: build whatever model the folder names; False builds models of `secateur.zoo` only.
    Raises:
        UsageError: a file is missing, or a model is needed and none is given.
        FormatError: a file is damaged or does not fit the model.
    """
    for name in ("surgery.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder}: {name} is missing; give the folder of a finished run")
    facts = _json(folder / "surgery.json")
    if model is None:
        path = facts.get("model")
        if not isinstance(path, str):
            raise UsageError(
                f"{folder}: the run was made from a model object; pass model=, a fresh instance of the same class"
            )
        if not trust:
            check_ours(folder, model=path)
        model = build_model(path)
    model = plain(model)[0]  # as the run began
    for cut in surgery_of(folder):
        model = graph.apply_surgery(model, cut)
    return _loaded(model, folder / "model.safetensors")


def surgery_of(folder: Path) -> list[Mapping[str, Any]]:
    """The cuts that a run's folder records, in order. FormatError: damaged."""
    cuts = _json(folder / "surgery.json")["cuts"]
    assert isinstance(cuts, list)
    return cuts


def dense(folder: Path, model: nn.Module, trained: bool) -> nn.Module | None:
    """The dense net of a run: `model` (copied) as it is, or with the weights of the folder where the run trained it.

    Args:
        trained: did the run train it? A file that an earlier run left in the folder is not looked at otherwise.
    Returns:
        None where the run's file of it is missing.
    """
    model = plain(model)[0]
    if not trained:
        return model.eval()
    return _loaded(model, folder / DENSE) if (folder / DENSE).is_file() else None


def _loaded(model: nn.Module, path: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        model.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as e:
        raise FormatError(f"{path}: does not fit the model: {e}") from None
    return model.eval()


def check_ours(folder: Path, model: str | None = None, data: str | None = None) -> None:
    """Refuse what a file in `folder` names as model or data and is code of somebody else's: it would be run.

    Raises:
        UsageError: `model` is not in `secateur.zoo.MODELS`, `data` is an import path.
    """
    from secateur import zoo
    from secateur.data import is_path

    if model is not None and model not in {f"secateur.zoo:{name}" for name in zoo.MODELS}:
        raise UsageError(
            f"{folder}: the model of this run, {model[:80]!r}, is code outside secateur; where you trust the folder, "
            "say so (from Python trust=True, in a command --trust), or pass model= to secateur.load"
        )
    if data is not None and is_path(data):
        raise UsageError(
            f"{folder}: the data of this run, {data[:80]!r}, is code outside secateur; where you trust the folder, "
            "say so (from Python trust=True, in a command --trust)"
        )


def build_model(path: str) -> nn.Module:
    """The module that `package.module:attribute` names: an instance, or a callable that makes one.

    Raises:
        UsageError: nothing there, or no module came out.
    """
    from torch import nn

    found = imported(path, "model", "secateur.zoo:lenet5")
    made = found if isinstance(found, nn.Module) or not callable(found) else called(found, path, "model")
    if not isinstance(made, nn.Module):
        raise UsageError(f"model {path!r}: gave a {type(made).__name__}; an nn.Module or a function that makes one")
    return made


def _json(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as e:
        raise FormatError(f"{path}: damaged ({e})") from None
    if not isinstance(facts, dict) or facts.get("schema") != SURGERY or not isinstance(facts.get("cuts"), list):
        raise FormatError(f"{path}: not a surgery record of schema {SURGERY}")
    return facts
