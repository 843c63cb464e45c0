"""One compressed network in all its written forms: module, ONNX, `.sct`, safetensors and the recorded surgery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secateur import formats, graph
from secateur.contracts import Term
from secateur.errors import CheckError, UnsupportedError
from secateur.export import factored, norms, sized
from secateur.export import onnx as onnx_export
from secateur.graph import activations
from secateur.graph.copying import copied
from secateur.terms import feasible
from secateur.training.loop import load_weights
from secateur.types import Weights

if TYPE_CHECKING:
    from torch import nn

    from secateur.graph import Example, Traced

LEVEL = "model.level{}.onnx"  # of a net of several levels, each but the loosest
DENSE = "dense.safetensors"  # of a run that trained its dense net itself


@dataclass(frozen=True)
class Written:
    """The forms of one network. `surgery` is the list of cuts that turn the original module into `module`.

    `levels` are its tighter levels, from loose to tight, each written as a net of its own.
    """

    module: nn.Module
    onnx: bytes
    packed: Callable[[], bytes]
    surgery: list[dict[str, Any]]
    levels: tuple[Written, ...] = ()

    @cached_property
    def sct(self) -> bytes:
        """The packed file; made when it is asked for (13 s of a ResNet-50 whose weights are all different)."""
        return self.packed()

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
    model: nn.Module,
    traced: Traced,
    weights: Weights | None,
    pinned: graph.Pinned | None,
    terms: Sequence[Term] = (),
    short: bool = False,
    integers: bool = False,
    proof: graph.Proof = "always",
) -> tuple[nn.Module, dict[str, Any]]:
    """The network that is written: dead units cut (`graph.shrink`), then the layers of products split in two.

    Args:
        integers: activations are quantized: no constant can be folded exactly between them, so everything stays.
        terms: the sets that the weights are in; they know the products.
        short: vectors on which no set of `terms` acts get few digits (`norms.shorten`).
        proof: as `graph.shrink` takes it.
    """
    if integers:
        small, cut = copied(model), {"version": 1, "edits": [], "biases": {}, "pads": []}
        load_weights(small, weights or {})
    else:
        small, cut = graph.shrink(model, traced, weights, pinned, proof)
    if short:
        norms.shorten(small, constrained(terms))
    chains = feasible.chains(terms, dict(small.named_parameters()))
    return graph.factored(small, cut, chains) if chains else (small, cut)


def write(
    model: nn.Module,
    traced: Traced,
    example: Example,
    weights: Weights | None = None,
    surgery: Sequence[dict[str, Any]] = (),
    pinned: graph.Pinned | None = None,
    terms: Sequence[Term] = (),
    short: bool = False,
    integers: bool = False,
) -> Written:
    """Cut what no longer matters, export and pack; `model` is not changed.

    Weights of uniform levels are int8 codes and DequantizeLinear in the ONNX file. The `.sct` file holds these or the
    same values as floats on a grid, whichever is shorter (one scale a tensor: the grid saves the nodes; one a row:
    the codes win by far).

    Args:
        example: what is exported on; one example where the file has a fixed batch.
        weights: parameter name -> values to write; the model's own when left out.
        surgery: cuts that were already made on the way to `model`.
        pinned: what must stay for the sake of a set (`graph.shrink`).
        terms: the sets that the weights are in; they know the scales and the products.
        short: as `smaller` takes it.
        integers: activations are quantized: the `.sct` file keeps the codes, or the engine would compute in float32.
    """
    small, cut = smaller(model, traced, weights, pinned, terms, short, integers)
    small.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    scales = feasible.grids(terms, dict(small.named_parameters()))
    if integers:
        assert isinstance(small, torch.fx.GraphModule)
        activations.round_biases(small, scales, constrained(terms))
    exported = norms.merged(exported_bytes(small, example, scales), constrained(terms))

    def packed() -> bytes:
        files = [exported, onnx_export.dequantised(exported)] if scales and not integers else [exported]
        return min(map(formats.pack, files), key=len)

    return Written(small, exported, packed, [*surgery, cut])


def write_dense(model: nn.Module, traced: Traced, example: Example, exported: Callable[[], bytes]) -> Written:
    """`write` of a net that nothing has been done to; where nothing of it is dead, its file is `exported`."""
    small, cut = smaller(model, traced, None, None, proof="of changes")
    own = model.state_dict()
    state = small.state_dict()
    whole = own.keys() == state.keys() and all(torch.equal(own[k], v) for k, v in state.items())
    small.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    data = norms.merged(exported() if whole else exported_bytes(small, example), set())
    return Written(small, data, lambda: formats.pack(data), [cut])


def constrained(terms: Sequence[Term]) -> set[str]:
    """Names of the parameters that a set acts on: they are written as they are."""
    return {m.param for t in terms for m in t.site.members}


def exported_bytes(
    module: nn.Module, example: Example, scales: Mapping[str, Any] | None = None, check: bool = True
) -> bytes:
    """The ONNX file, its batch axis free where that is asked for, or where torch's exporter can.

    Args:
        check: run it beside the module.
    """
    if example.dynamic is not False:
        try:
            return onnx_export.to_bytes(module, example.inputs, quantised=scales, check=check)
        except (UnsupportedError, CheckError):
            if example.dynamic:
                raise
    return onnx_export.to_bytes(module, example.one, dynamic_batch=False, quantised=scales, check=check)


def fixed_batch(onnx: bytes) -> int | None:
    """The only size of the first input's first axis that an ONNX file takes; None when it is free."""
    import onnx as onnx_package

    shape = onnx_package.load_model_from_string(onnx).graph.input[0].type.tensor_type.shape.dim
    return int(shape[0].dim_value) if shape and shape[0].HasField("dim_value") else None


@dataclass(frozen=True)
class Template:
    """An exported graph whose tensors can be exchanged: sizes of many candidates without exporting each.

    Exact as long as the cut changes tensor shapes only, which `write` settles in the end.

    Attributes:
        beyond: bytes of grids of activations, which will be written besides; with them a file keeps the codes.
    """

    onnx: bytes
    beyond: int = 0

    def nbytes(self, module: nn.Module, terms: Sequence[Term] = ()) -> int:
        """Bytes of the `.sct` file with the tensors of `module`, which are in the sets of `terms`."""
        sct, beyond = self.packed(module, terms)
        return len(sct) + beyond

    def file(self, module: nn.Module) -> bytes:
        """The `.onnx` file with the tensors of `module`."""
        return self._filled(module)[0]

    def packed(self, module: nn.Module, terms: Sequence[Term] = ()) -> tuple[bytes, int]:
        """That file, and what the file of `write` takes beyond it."""
        files, beyond = self._to_pack(module, terms)
        return min(map(formats.pack, files), key=len), beyond

    def sections(self, module: nn.Module, terms: Sequence[Term] = (), roughly: bool = False) -> dict[str, int]:
        """Bytes of that file by section, as `sized.sections` names them, and under an empty name what it takes beyond.

        Args:
            roughly: large tensors are not coded one by one (`sized.py`).
        """
        files, beyond = self._to_pack(module, terms)
        if roughly:
            found = min((sized.sections(f) for f in files), key=lambda x: sum(x.values()))
        else:
            found = sized.exactly(min(map(formats.pack, files), key=len))
        return {**found, "": found.get("", 0) + beyond}

    def _to_pack(self, module: nn.Module, terms: Sequence[Term]) -> tuple[list[bytes], int]:
        """The forms of the file of which the shorter one is written, and what is written beyond it."""
        plain, made = self._filled(module)
        scales = feasible.grids(terms, dict(module.named_parameters()))
        files = [onnx_export.quantised(plain, scales)] if scales else []
        if not (files and self.beyond):
            files.append(plain)
        return files, made + self.beyond

    def _filled(self, module: nn.Module) -> tuple[bytes, int]:
        """The graph with the module's tensors, and the bytes of what has no place in it."""
        import onnx as onnx_package
        from onnx import numpy_helper

        graph_of = onnx_package.load_model_from_string(self.onnx)
        factored.split(graph_of.graph, module)
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
        return graph_of.SerializeToString(deterministic=True), made
