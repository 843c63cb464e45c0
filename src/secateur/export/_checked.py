"""Does the written graph compute what the module does? ONNX's checker, then ONNX Runtime beside torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.engine.agreement import APART, relative_error
from secateur.engine.quantized import computes_in_integers
from secateur.errors import CheckError, first_line
from secateur.graph.calling import evaluating, tensors_of
from secateur.graph.copying import copied
from secateur.graph.doubled import in_double
from secateur.graph.example import with_rows
from secateur.shell import runtimes


def check_written(
    model: nn.Module,
    args: Any,
    kwargs: Any,
    data: bytes,
    raw: Any,
    exported: torch.export.ExportedProgram,
    dynamic: bool,
) -> None:
    check_form(data)
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


def check_form(data: bytes) -> None:
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
