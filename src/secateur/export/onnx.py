"""Hand a network out as ONNX: exported by torch, brought into the shortest plain form, checked, and run.

Why torch's exporter and own passes: it covers far more operators than this package will, and its graph before its own
optimiser is faithful; its optimiser folds batch-norm into convolutions, which moves snapped weights off their levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import MissingExtraError, UsageError
from secateur.export._checked import check_written
from secateur.export._names import as_exported, check_names, has_subgraphs, name_ends
from secateur.export._traced import OPSET as OPSET
from secateur.export._traced import capture, parameter_names, plain_call, raw_onnx, symbolic_shapes
from secateur.graph.calling import arguments, evaluating, run_eagerly, tensors_of


def to_bytes(
    model: nn.Module,
    example_inputs: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    fold_norms: bool = False,
    quantised: Mapping[str, Any] | None = None,
    check: bool = True,
) -> bytes:
    """The network as the bytes of one ONNX file.

    Canonical and small: initializers carry the parameters' names, shared weights are one, shapes are constants, what
    equals its default or is only said is left out. The bytes are a function of the network alone.

    Args:
        model: put into eval mode for the export; not changed.
        example_inputs: a tensor, a tuple (positions) or a dict (keywords), with a leading batch axis.
        input_names: default: the names in the model's forward.
        output_names: default: the keys of a dict, else `output` or `output_0`, `output_1`, ...
        dynamic_batch: leave axis 0 of all inputs free (called `batch`); every tensor input must then have one.
        fold_norms: fold batch-norm into the convolution before it. Rounds weights, so snapped values and codebooks
            are lost; off by default, engines fold at load time anyway.
        quantised: parameter name -> scale, for weights of uniform levels w = scale * code, |code| <= 127: stored as
            int8 codes and DequantizeLinear, except where a MatMul reads them (see `_canonical.quantise`). One number,
            one per row, or one along another axis (shaped to multiply the weight).
        check: run the checker and, where onnxruntime is installed, compare with torch on batches of 1 and 3.
    Raises:
        UsageError: the model does not run on the inputs, or wrong names.
        UnsupportedError: torch cannot export it; the message names the place in the user's code.
        CheckError: the written graph does not compute what the model does; names the first node that differs.
    """
    if find_spec("onnx") is None:
        raise MissingExtraError("export needs the onnx package; pip install 'secateur[compress]'")
    from secateur.export import _canonical as canonical
    from secateur.export import _simplify

    args, kwargs = arguments(example_inputs)
    with evaluating(model):
        answer = run_eagerly(model, args, kwargs)
        n_ends = len(tensors_of((args, kwargs))), len(tensors_of(answer))
        check_names(model, input_names, output_names, *n_ends, quantised)
        with plain_call(model, kwargs, answer):
            exported = capture(model, args, kwargs, dynamic_batch)
        raw, exported = raw_onnx(model, exported)
    if has_subgraphs(raw.graph):
        data = as_exported(model, raw, input_names, output_names, answer)
        if check:
            check_written(model, args, kwargs, data, raw, exported, dynamic_batch)
        return data
    g = _taken_apart(model, raw, exported)
    name_ends(g, input_names, output_names, answer)
    _simplify.simplify(g, fold_norms=fold_norms)
    _quantise(g, quantised or {})
    canonical.name_free_axis(g, "batch")
    data = _reassembled(g)
    if check:
        check_written(model, args, kwargs, data, raw, exported, dynamic_batch)
    return data


def _taken_apart(model: nn.Module, raw: Any, exported: torch.export.ExportedProgram) -> Any:
    """Torch's graph in the form that the passes work on, its parameters under the module's names."""
    import onnx

    from secateur.export import _canonical as canonical

    params = parameter_names(model, raw)
    names = frozenset(params.values())
    g = canonical.take_apart(onnx.shape_inference.infer_shapes(raw, data_prop=True), frozenset())
    shapes, g.sizes = symbolic_shapes(exported)
    g.shapes.update(shapes)
    for old, new in params.items():
        if old != new:
            value = g.constants.pop(old)
            canonical.rename(g, old, new)
            g.constants.setdefault(new, value)
    g.params = names
    g.weights = names & {n for n, _ in model.named_parameters()}
    return g


def with_weights(data: bytes, weights: Mapping[str, Any]) -> bytes:
    """The same graph with other values: for trying weights without exporting again (milliseconds, not seconds).

    Args:
        data: a file made by `to_bytes`.
        weights: initializer (= parameter) name -> tensor or array of the initializer's shape.
    Raises:
        UsageError: a name that the file does not have, another shape, or an initializer of codes.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(data)
    places = {t.name: t for t in model.graph.initializer}
    for name, value in weights.items():
        array = np.asarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        place = places.get(name)
        if place is None and f"{name}.T" in places:
            place, array = places[f"{name}.T"], array.T
        if place is None:
            raise UsageError(f"with_weights: no initializer named {name!r}; known: {', '.join(sorted(places))}")
        old = numpy_helper.to_array(place)
        if old.shape != array.shape or old.dtype.kind != "f":
            raise UsageError(
                f"with_weights: {name} is {old.dtype} {list(old.shape)} in the file, {list(array.shape)} came"
            )
        place.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, old.dtype), place.name))
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def quantised(data: bytes, scales: Mapping[str, Any]) -> bytes:
    """The file that `to_bytes(quantised=scales)` would have made, from the one it made without.

    Raises:
        UsageError: a name that the file does not have, or values off the grid.
    """
    import onnx

    from secateur.export import _canonical as canonical

    model = onnx.load_model_from_string(data)
    if has_subgraphs(model.graph):
        return data  # its weights may be read inside a branch
    g = canonical.take_apart(model, frozenset(t.name for t in model.graph.initializer))
    _quantise(g, scales)
    return _reassembled(g)


def dequantised(data: bytes) -> bytes:
    """The file with plain float weights instead of codes and DequantizeLinear: `quantised` undone."""
    import onnx

    from secateur.export import _canonical as canonical

    model = onnx.load_model_from_string(data)
    if all(n.op_type != "DequantizeLinear" for n in model.graph.node):
        return data
    g = canonical.take_apart(model, frozenset(t.name for t in model.graph.initializer))
    canonical.dequantise(g)
    return _reassembled(g)


def _quantise(g: Any, scales: Mapping[str, Any]) -> None:
    from secateur.export import _canonical as canonical

    for name, scale in scales.items():
        stored, factors = name, np.asarray(scale, np.float32)
        if name not in g.constants:  # stored turned, and its scales with it
            stored, factors = f"{name}.T", factors.T if factors.ndim != 1 else factors.reshape(1, -1)
        if stored not in g.constants:
            raise UsageError(f"quantised: {name!r} is not an initializer of the exported graph")
        try:
            canonical.quantise(g, stored, factors)
        except ValueError as e:
            raise UsageError(f"quantised: {e}") from e


def _reassembled(g: Any) -> bytes:
    from secateur.export import _canonical as canonical

    canonical.shorten_names(g)
    made: bytes = canonical.assemble(g).SerializeToString(deterministic=True)
    return made
