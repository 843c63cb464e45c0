"""Do the engine, ONNX Runtime and PyTorch answer the same?

The tolerance is computed, not chosen: a float32 net commits a rounding error that is seen by running the same module in
float64; every runtime may sum in another order and is allowed `SLACK` times that error, plus `FLOOR` units in the last
place of the largest output for nets so small that the observed error is zero by luck.

Of a net whose activations are quantized every layer passes a result that lies between two codes on as one or the other:
there the outputs of all examples together may be `APART` from one another (`engine/agreement.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secateur.engine import InferenceSession
from secateur.engine.agreement import APART, relative_error
from secateur.engine.oracle import Oracle, oracle
from secateur.engine.peers import Unavailable, onnxruntime
from secateur.engine.quantized import computes_in_integers
from secateur.graph.copying import copied
from secateur.graph.doubled import in_double
from secateur.proof import steps
from secateur.shell.importing import told

if TYPE_CHECKING:
    from torch import nn

SLACK = 8.0
FLOOR = 32.0
Array = np.ndarray[Any, Any]


def outputs_agree(sct: bytes, onnx: bytes, module: nn.Module | None, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Run the same inputs everywhere and compare.

    Args:
        sct, onnx: the two files' bytes.
        module: the compressed net as an `nn.Module`, or None when it cannot be rebuilt.
        inputs: arrays by ONNX input name, first axis = examples.
    Returns:
        max_abs_error (largest over all pairs), tolerance, agree, `apart` (of a network with steps: the share of
        examples that lie on one and may differ by more, `steps.py`), `relative` (Euclidean distance relative to the
        norm, the largest of all pairs), `errors` by pair, `outputs` by runtime, `oracle`:
        who stands for ONNX Runtime among them, in words (None: not installed). That is not the deployed ONNX Runtime
        where the file computes in integers, whose products saturate on some CPUs. `failed`: why it could not run it.
    """

    names = list(inputs)
    outputs: dict[str, list[Array]] = {
        "engine": InferenceSession(sct).run(None, dict(inputs)),
        "engine_onnx": InferenceSession(onnx).run(None, dict(inputs)),
    }
    integers = computes_in_integers(onnx)
    oracle, failed, has_steps = _oracle(onnx), None, integers or steps.has_steps(onnx)
    try:
        if oracle is not None:
            outputs["onnxruntime"] = [np.asarray(y) for y in oracle.call(dict(inputs))]
    except Exception as e:  # a peer's errors have no common class; they lose no run, and no folder passes with one
        failed = told(e)
    rounding = 0.0
    if module is not None:
        outputs["torch"], exact = _torch(module, [inputs[n] for n in names])
        rounding = (steps.usual_gap if has_steps else _gap)(outputs["torch"], exact)
    reference = outputs.get("torch") or outputs.get("onnxruntime") or outputs["engine"]
    largest = max(float(np.abs(y).max(initial=0.0)) for y in reference)
    tolerance = SLACK * rounding + FLOOR * float(np.finfo(np.float32).eps) * max(largest, 1e-6)
    errors = {f"{a}-{b}": _gap(outputs[a], outputs[b]) for a in outputs for b in outputs if a < b}
    worst = max(errors.values(), default=0.0)
    apart = 0.0  # share of the examples
    if has_steps and worst > tolerance:
        apart = max(steps.share_apart(outputs[a], outputs[b], tolerance) for a in outputs for b in outputs if a < b)
    relative = max((relative_error([outputs[a]], [outputs[b]]) for a in outputs for b in outputs if a < b), default=0.0)
    return {
        "max_abs_error": worst,
        "tolerance": tolerance,
        "agree": bool(worst <= tolerance or 0 < apart <= steps.SHARE or (integers and relative <= APART)),
        "apart": apart,
        "relative": relative,
        "errors": errors,
        "outputs": outputs,
        "oracle": oracle.name if oracle is not None else None,
        "failed": failed,
    }


def _oracle(onnx: bytes) -> Oracle | None:
    """ONNX Runtime on a float32 file; on one of integers who computes it as written (`engine/oracle.py`)."""
    if computes_in_integers(onnx):
        return oracle(onnx)
    try:
        return Oracle("ONNX Runtime", onnxruntime(onnx, 0, {})[0])
    except Unavailable:
        return None


def _torch(module: nn.Module, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
    """Outputs in float32 and in float64 of the module in eval mode; the caller's module is left as it was."""

    def run(net: nn.Module, cast: Callable[[torch.Tensor], torch.Tensor]) -> list[Array]:
        with torch.no_grad():
            y = net(*[cast(torch.from_numpy(np.asarray(a, order="C"))) for a in arrays])
        items = y if isinstance(y, tuple | list) else list(y.values()) if isinstance(y, dict) else [y]
        return [t.numpy() for t in items]

    net = copied(module).eval()
    single = run(net, lambda t: t)
    with in_double():
        return single, run(net.double(), lambda t: t.double() if t.is_floating_point() else t)


def _gap(a: list[Array], b: list[Array]) -> float:
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    gaps = [np.abs(x.astype(np.float64) - y.astype(np.float64)) for x, y in zip(a, b, strict=True)]
    worst = max((float(g.max(initial=0.0)) for g in gaps), default=0.0)
    return worst if np.isfinite(worst) else float("inf")
