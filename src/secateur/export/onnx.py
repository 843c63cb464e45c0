"""Hand a network out as ONNX: exported by torch, brought into the shortest plain form, checked, and run.

Why torch's exporter and own passes: it covers far more operators than this package will, and its graph before its own
optimiser is faithful; its optimiser folds batch-norm into convolutions, which moves snapped weights off their levels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.engine.agreement import APART, relative_error
from secateur.engine.quantized import computes_in_integers
from secateur.errors import CheckError, MissingExtraError, UnsupportedError, UsageError, first_line
from secateur.export._attention import write_out_attention
from secateur.graph.calling import arguments, evaluating, run_eagerly, tensors_of, user_frame
from secateur.graph.capture import plain_bags, quiet_torch
from secateur.graph.copying import copied
from secateur.graph.doubled import in_double
from secateur.graph.example import with_rows
from secateur.shell import runtimes

OPSET = 18  # the exporter's native set; ONNX Runtime 1.14 and OpenVINO 2023.0 and later run it


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

    Canonical and small: initializers carry the parameters' names, shared weights are one initializer, shapes are
    constants, attributes that equal their defaults, doc strings, metadata and value infos are left out, values have
    short names. The bytes are a function of the network alone.

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
    try:
        import onnx
    except ImportError as e:
        raise MissingExtraError("export needs the onnx package; pip install 'secateur[compress]'") from e
    from secateur.export import _canonical as canonical
    from secateur.export import _simplify

    args, kwargs = arguments(example_inputs)
    with evaluating(model):
        answer = run_eagerly(model, args, kwargs)
        _check_names(
            model, input_names, output_names, len(tensors_of((args, kwargs))), len(tensors_of(answer)), quantised
        )
        with _plain_call(model, kwargs, answer):
            exported = _capture(model, args, kwargs, dynamic_batch)
        raw, exported = _raw_onnx(model, exported)
    if _has_subgraphs(raw.graph):
        data = _as_exported(model, raw, input_names, output_names, answer)
        if check:
            _check(model, args, kwargs, data, raw, exported, dynamic_batch)
        return data
    params = _parameter_names(model, raw)
    names = frozenset(params.values())
    with_shapes = onnx.shape_inference.infer_shapes(raw, data_prop=True)
    g = canonical.take_apart(with_shapes, frozenset())
    shapes, g.sizes = _symbolic_shapes(exported)
    g.shapes.update(shapes)
    for old, new in params.items():
        if old != new:
            value = g.constants.pop(old)
            canonical.rename(g, old, new)
            g.constants.setdefault(new, value)
    g.params = names
    g.weights = names & {n for n, _ in model.named_parameters()}
    _name_ends(g, input_names, output_names, answer)
    _simplify.simplify(g, fold_norms=fold_norms)
    _quantise(g, quantised or {})
    canonical.shorten_names(g)
    canonical.name_free_axis(g, "batch")
    made = canonical.assemble(g)
    data = bytes(made.SerializeToString(deterministic=True))
    if check:
        _check(model, args, kwargs, data, raw, exported, dynamic_batch)
    return data


def _capture(model: nn.Module, args: Any, kwargs: Any, dynamic: bool) -> torch.export.ExportedProgram:
    shapes: Any = None
    if dynamic:
        batch = torch.export.Dim("batch")

        def free(t: Any) -> Any:
            return {0: batch} if isinstance(t, Tensor) and t.dim() else None

        # A batch of one would be taken for a constant.
        args, kwargs = torch.utils._pytree.tree_map(
            lambda t: torch.cat((t, t)) if isinstance(t, Tensor) and t.dim() and t.shape[0] == 1 else t, (args, kwargs)
        )
        spec = torch.utils._pytree.tree_map(free, (tuple(args), kwargs))
        shapes = dict(inspect.signature(model.forward).bind(*spec[0], **spec[1]).arguments)
    try:
        with quiet_torch():
            exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            plain_bags(exported.graph)
            write_out_attention(exported)
            return exported
    except UnsupportedError:
        raise
    except Exception as e:
        hint = (
            "export with dynamic_batch=False, or take the batch size from the input" if dynamic else "see torch.export"
        )
        raise UnsupportedError(
            f"{type(model).__name__} cannot be exported: {first_line(e)}{user_frame(e)}; {hint}"
        ) from e


@contextmanager
def _plain_call(model: nn.Module, kwargs: Any, answer: Any) -> Iterator[None]:
    """Inside: forward names its keywords one by one and answers with tensors alone.

    torch.export takes no free axes through `**keywords`, and ONNX has no outputs that are numbers or text: constants
    of the code among the outputs are left out.
    """
    forward = model.forward
    known = inspect.signature(forward)
    named = [p for p in known.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY) for k in kwargs if k not in known.parameters]
    constants = [v for v in torch.utils._pytree.tree_leaves(answer) if not isinstance(v, Tensor)]
    if not constants and len(named) == len(known.parameters):
        yield
        return

    def plain(*args: Any, **keywords: Any) -> Any:
        return tensors_of(forward(*args, **keywords)) if constants else forward(*args, **keywords)

    plain.__signature__ = known.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = plain
    try:
        yield
    finally:
        model.__dict__.pop("forward")
        if own is not None:
            model.__dict__["forward"] = own


def _raw_onnx(model: nn.Module, exported: torch.export.ExportedProgram) -> tuple[Any, torch.export.ExportedProgram]:
    """Torch's own graph, and the program it names its values after (decomposed: numbering differs from `exported`)."""
    try:
        from secateur.export import _fake_quantize, _recurrent

        with quiet_torch():
            if _recurrent.projected(exported):
                exported = _recurrent.unrolled(exported)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                external_data=False,
                custom_translation_table=_recurrent.translations() | _fake_quantize.translations(),
            )
        return program.model_proto, program.exported_program or exported  # type: ignore[union-attr]
    except ImportError as e:
        raise MissingExtraError("torch's ONNX exporter needs onnxscript; pip install 'secateur[compress]'") from e
    except Exception as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        what = next((line for line in lines if "node" in line.lower() or "aten" in line), lines[0] if lines else "?")
        raise UnsupportedError(
            f"{type(model).__name__}: torch's ONNX exporter has no form for it: {what[:300]}; "
            "replace the operation by one that ONNX knows"
        ) from e


def _symbolic_shapes(
    exported: torch.export.ExportedProgram,
) -> tuple[dict[str, list[int | str]], dict[str, int | str]]:
    """Shapes of traced values and traced integers, free axes as text. The exporter names its values as the trace."""
    shapes: dict[str, list[int | str]] = {}
    sizes: dict[str, int | str] = {}
    for n in exported.graph.nodes:
        value = n.meta.get("val")
        if n.op == "call_function" and isinstance(value, Tensor):
            shapes[n.name] = [d if isinstance(d, int) else str(d) for d in value.shape]
        elif n.op == "call_function" and isinstance(value, int | torch.SymInt) and not isinstance(value, bool):
            sizes[n.name] = value if isinstance(value, int) else str(value)
    return shapes, sizes


def _parameter_names(model: nn.Module, raw: Any) -> dict[str, str]:
    """Initializer name -> the parameter's or buffer's first name (tied ones share)."""
    first: dict[int, str] = {}
    found = {}
    initializers = {t.name for t in raw.graph.initializer}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        first.setdefault(id(tensor), name)
        if name in initializers:
            found[name] = first[id(tensor)]
    return found


def _check_names(
    model: nn.Module,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    n_inputs: int,
    n_outputs: int,
    quantised: Mapping[str, Any] | None,
) -> None:
    """All that can be wrong with names, before the slow part."""
    own = {n for n, _ in [*model.named_parameters(), *model.named_buffers()]}
    for what, names, n in (("input", input_names, n_inputs), ("output", output_names, n_outputs)):
        if names is None:
            continue
        if len(names) != n or len(set(names)) != n:
            raise UsageError(f"{what}_names: {list(names)} given, {n} different names needed")
        if clash := own & set(names):
            raise UsageError(f"{what}_names: {clash.pop()!r} is a parameter's name; choose another")
    for name in quantised or {}:
        if name not in own:
            raise UsageError(f"quantised: no parameter named {name!r}; known: {', '.join(sorted(own))}")


def _name_ends(g: Any, input_names: Sequence[str] | None, output_names: Sequence[str] | None, answer: Any) -> None:
    from secateur.export import _canonical as canonical

    output_names = _output_names(answer, len(g.outputs), output_names)
    for what, ends, names in (("input", g.inputs, input_names), ("output", g.outputs, output_names)):
        if names is None:
            continue
        # In two steps, so that swapping names cannot merge values.
        for i, end in enumerate(ends):
            canonical.rename(g, end.name, f"//{what}{i}")
            end.name = f"//{what}{i}"
        for end, name in zip(ends, names, strict=True):
            clash = name in g.constants or any(name in (*n.input, *n.output) for n in g.nodes)
            if clash:
                canonical.rename(g, name, f"{name}//inner")
                if name in g.constants:
                    g.constants[f"{name}//inner"] = g.constants.pop(name)
            canonical.rename(g, end.name, name)
            end.name = name


def _has_subgraphs(graph: Any) -> bool:
    return any(a.type in (a.GRAPH, a.GRAPHS) for n in graph.node for a in n.attribute)


def _as_exported(
    model: nn.Module, raw: Any, input_names: Sequence[str] | None, output_names: Sequence[str] | None, answer: Any
) -> bytes:
    """Graphs with If, Loop or Scan stay as torch wrote them but for names: values may be read inside a branch."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(raw)
    new = {old: name for old, name in _parameter_names(model, raw).items() if old != name}
    for ends, names in (
        (made.graph.input, input_names),
        (made.graph.output, _output_names(answer, len(made.graph.output), output_names)),
    ):
        for end, name in zip(ends, names or [e.name for e in ends], strict=True):
            new[end.name] = name
    taken = set(new.values())
    names_of_values = {o for n in made.graph.node for o in n.output} - new.keys()
    new |= {name: f"{name}//inner" for name in names_of_values & taken}
    _rename_all(made.graph, new)
    kept = {t.name: t for t in reversed(made.graph.initializer)}  # shared weights are one initializer
    del made.graph.initializer[:]
    made.graph.initializer.extend(reversed(kept.values()))
    del made.graph.value_info[:], made.metadata_props[:]
    return bytes(made.SerializeToString(deterministic=True))


def _rename_all(graph: Any, new: Mapping[str, str]) -> None:
    """Values by their new names, in branches too: ONNX forbids that an inner name hides an outer one."""
    for thing in (*graph.input, *graph.output, *graph.initializer):
        thing.name = new.get(thing.name, thing.name)
    for n in graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
        for names in (n.input, n.output):
            for i, name in enumerate(names):
                names[i] = new.get(name, name)
        for a in n.attribute:
            for inner in (*a.graphs, *([a.g] if a.type == a.GRAPH else [])):
                _rename_all(inner, new)


def _output_names(answer: Any, n: int, given: Sequence[str] | None) -> Sequence[str]:
    if given is not None:
        return given
    if isinstance(answer, Mapping):
        keys = [str(k) for k, v in answer.items() if isinstance(v, Tensor)]
        if len(keys) == n:
            return keys
    return ["output"] if n == 1 else [f"output_{i}" for i in range(n)]


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
    if _has_subgraphs(model.graph):
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


def _check(
    model: nn.Module,
    args: Any,
    kwargs: Any,
    data: bytes,
    raw: Any,
    exported: torch.export.ExportedProgram,
    dynamic: bool,
) -> None:
    _check_form(data)
    try:
        onnxruntime = runtimes.onnxruntime()
    except ImportError:
        return
    integers = computes_in_integers(data)
    session = _session(onnxruntime, data, as_written=integers)
    for batch in (1, 3) if dynamic else (None,):
        a, k = (args, kwargs) if batch is None else with_rows((args, kwargs), range(batch))
        with evaluating(model):
            wanted = [t.detach().cpu().numpy() for t in tensors_of(model(*a, **k))]
            tolerance = _tolerance(model, a, k, wanted)
        feeds = _feeds([i.name for i in session.get_inputs()], raw, a, k)
        try:
            got = session.run(None, feeds)
        except Exception as e:
            raise CheckError(f"onnxruntime cannot run the exported graph on a batch of {batch}: {e}") from e
        for out, w, y in zip(session.get_outputs(), wanted, got, strict=True):
            worst = float(np.abs(y.astype(np.float64) - w).max(initial=0)) if y.shape == w.shape else float("inf")
            if integers and y.shape == w.shape and relative_error([[y]], [[w]]) <= APART:
                continue  # a result between two codes may become either
            if not worst <= tolerance:
                where = _first_difference(onnxruntime, raw, exported, a, k, tolerance)
                raise CheckError(
                    f"output {out.name!r} of the exported graph is {worst:.3g} off torch's (tolerance {tolerance:.3g}, "
                    f"batch {batch}, shapes {y.shape} and {w.shape}); {where}"
                )


def _check_form(data: bytes) -> None:
    """ONNX's checker and its shape inference; the latter errs itself on STFT, where a run alone must decide.

    Raises:
        CheckError: the graph is not valid ONNX.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    try:
        onnx.checker.check_model(model)
    except Exception as e:
        raise CheckError(f"the exported graph fails the ONNX checker: {first_line(e)}") from e
    if any(n.op_type == "STFT" for n in _all_nodes(model.graph)):
        return
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:
        raise CheckError(f"the exported graph fails ONNX's shape inference: {first_line(e)}") from e


def _all_nodes(graph: Any) -> Iterator[Any]:
    """A graph's nodes and those of its branches."""
    for n in graph.node:
        yield n
        for a in n.attribute:
            for inner in (*a.graphs, *([a.g] if a.type == a.GRAPH else [])):
                yield from _all_nodes(inner)


def _session(onnxruntime: Any, data: bytes, as_written: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    if as_written:  # on some CPUs its integer layers saturate
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise CheckError(f"onnxruntime cannot load the exported graph: {e}") from e


def _feeds(names: list[str], raw: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    given = tensors_of((args, kwargs))
    return {n: t.detach().cpu().numpy() for n, t in zip(names, given, strict=True)}


def _tolerance(model: nn.Module, args: Any, kwargs: Any, wanted: list[Any]) -> float:
    """16 times torch's own distance from a double-precision run, and never below 64 roundings of the largest output.

    Two correct float32 implementations differ by the order of their sums; the distance to double measures what
    rounding does in this network on these inputs.
    """
    scale = max((float(np.abs(w).max(initial=0)) for w in wanted), default=0.0)
    floor = 64 * float(np.finfo(np.float32).eps) * max(scale, 1e-3)
    try:
        exact = copied(model).double()
        a, k = torch.utils._pytree.tree_map(
            lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, (args, kwargs)
        )
        with in_double():
            answers = tensors_of(exact(*a, **k))
        rounding = max(float(np.abs(w - y.cpu().numpy()).max(initial=0)) for w, y in zip(wanted, answers, strict=True))
    except (RuntimeError, TypeError, ValueError):  # code that insists on float32
        rounding = 1e-5 * scale
    return 16 * rounding + floor


def _first_difference(onnxruntime: Any, raw: Any, exported: Any, args: Any, kwargs: Any, tolerance: float) -> str:
    """Names the first call whose ONNX form differs, by comparing torch's own export value by value."""
    import onnx

    full = onnx.ModelProto()
    full.CopyFrom(raw)
    values = {n.name: n for n in exported.graph.nodes if n.op == "call_function"}
    seen = {o.name for o in full.graph.output}
    for n in raw.graph.node:
        full.graph.output.extend(
            [onnx.helper.make_empty_tensor_value_info(o) for o in n.output if o in values and o not in seen]
        )
    try:
        session = _session(onnxruntime, full.SerializeToString())
        names = [o.name for o in session.get_outputs()]
        feeds = _feeds([i.name for i in session.get_inputs()], raw, args, kwargs)
        got = dict(zip(names, session.run(None, feeds), strict=True))
        env: dict[str, Any] = {}

        class Watch(torch.fx.Interpreter):
            def run_node(self, n: Any) -> Any:
                env[n.name] = super().run_node(n)
                return env[n.name]

        module = exported.module()
        with torch.no_grad():
            Watch(module).run(*tensors_of((args, kwargs)))
        for n in raw.graph.node:
            for o in n.output:
                if o in got and isinstance(env.get(o), Tensor):
                    y, w = got[o], env[o].numpy()
                    if y.shape != w.shape or not np.abs(y.astype(np.float64) - w).max(initial=0) <= tolerance:
                        return f"torch's export first differs at {n.op_type} {o!r}"
    except Exception as e:
        return f"the first differing node could not be found ({type(e).__name__})"
    return "torch's own export agrees, so the simplification is at fault; please report it with the model"
