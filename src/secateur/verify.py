"""Recomputes what a run claims, from its written files alone: `secateur verify DIR`.

Outputs: the engine on `model.sct`, ONNX Runtime on `model.onnx` and PyTorch on `model.safetensors` + `surgery.json`
must agree. The tolerance is computed, not chosen: a float32 net commits a rounding error that is seen by running the
same module in float64; every runtime may sum in another order and is allowed `SLACK` times that error, plus `FLOOR`
units in the last place of the largest output for nets so small that the observed error is zero by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.errors import FormatError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from secateur.engine.oracle import Oracle

SLACK = 8.0
FLOOR = 32.0
FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "report.json", "recipe.yaml")
Array = np.ndarray[Any, Any]


def outputs_agree(sct: bytes, onnx: bytes, module: nn.Module | None, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Run the same inputs everywhere and compare.

    Args:
        sct, onnx: the two files' bytes.
        module: the compressed net as an `nn.Module`, or None when it cannot be rebuilt.
        inputs: arrays by ONNX input name, first axis = examples.
    Returns:
        max_abs_error (largest over all pairs), tolerance, agree, `errors` by pair, `outputs` by runtime, and `oracle`:
        who stands for ONNX Runtime among them, in words (None: not installed). That is not the deployed ONNX Runtime
        where the file computes in integers, whose products saturate on some CPUs.
    """
    from secateur.engine import InferenceSession

    names = list(inputs)
    outputs: dict[str, list[Array]] = {
        "engine": InferenceSession(sct).run(None, dict(inputs)),
        "engine_onnx": InferenceSession(onnx).run(None, dict(inputs)),
    }
    oracle = _oracle(onnx)
    if oracle is not None:
        outputs["onnxruntime"] = [np.asarray(y) for y in oracle.call(dict(inputs))]
    rounding = 0.0
    if module is not None:
        outputs["torch"], exact = _torch(module, [inputs[n] for n in names])
        rounding = _gap(outputs["torch"], exact)
    reference = outputs.get("torch") or outputs.get("onnxruntime") or outputs["engine"]
    largest = max(float(np.abs(y).max(initial=0.0)) for y in reference)
    tolerance = SLACK * rounding + FLOOR * float(np.finfo(np.float32).eps) * max(largest, 1e-6)
    errors = {f"{a}-{b}": _gap(outputs[a], outputs[b]) for a in outputs for b in outputs if a < b}
    worst = max(errors.values(), default=0.0)
    return {
        "max_abs_error": worst,
        "tolerance": tolerance,
        "agree": bool(worst <= tolerance),
        "errors": errors,
        "outputs": outputs,
        "oracle": oracle.name if oracle is not None else None,
    }


def _oracle(onnx: bytes) -> Oracle | None:
    """ONNX Runtime on a float32 file; on one of integers who computes it as written (`engine/oracle.py`)."""
    from secateur.engine.oracle import Oracle, oracle
    from secateur.engine.peers import Unavailable, onnxruntime
    from secateur.engine.quantized import computes_in_integers

    if computes_in_integers(onnx):
        return oracle(onnx)
    try:
        return Oracle("ONNX Runtime", onnxruntime(onnx, 0, {})[0])
    except Unavailable:
        return None


def _torch(module: nn.Module, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
    """Outputs in float32 and in float64 of the module in eval mode; the caller's module is left as it was."""
    import copy

    import torch

    def run(net: nn.Module, cast: Callable[[torch.Tensor], torch.Tensor]) -> list[Array]:
        with torch.no_grad():
            y = net(*[cast(torch.from_numpy(np.ascontiguousarray(a))) for a in arrays])
        items = y if isinstance(y, tuple | list) else list(y.values()) if isinstance(y, dict) else [y]
        return [t.numpy() for t in items]

    net = copy.deepcopy(module).eval()
    single = run(net, lambda t: t)
    return single, run(net.double(), lambda t: t.double() if t.is_floating_point() else t)


def _gap(a: list[Array], b: list[Array]) -> float:
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    gaps = [np.abs(x.astype(np.float64) - y.astype(np.float64)) for x, y in zip(a, b, strict=True)]
    worst = max((float(g.max(initial=0.0)) for g in gaps), default=0.0)
    return worst if np.isfinite(worst) else float("inf")


def verify(folder: str | Path, data_dir: Path | None = None, *, trust: bool = False) -> dict[str, Any]:
    """Check a run's folder against its own report.

    Args:
        trust: run code outside secateur that the folder names as model or data.
    Returns:
        `{"folder", "passed", "checks": [{"name", "passed", "claimed", "found", "note"}]}`. A check that could not be
        made (no data, model given as an object) is listed with `passed` None and says why.
    Raises:
        UsageError: the folder is not a run's folder, or needs trust. FormatError: a file in it is damaged.
    """
    from secateur import formats
    from secateur.export.onnx import dequantised
    from secateur.report import records

    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder}: {', '.join(missing)} missing; give the folder of a finished `secateur compress` run"
        )
    report = records.read(folder)
    onnx, sct = (folder / "model.onnx").read_bytes(), (folder / "model.sct").read_bytes()
    checks: list[dict[str, Any]] = []

    def check(name: str, claimed: Any, found: Any, passed: bool | None = None, note: str = "") -> None:
        ok = claimed == found if passed is None and not note else passed
        checks.append({"name": name, "passed": ok, "claimed": claimed, "found": found, "note": note})

    compressed = report["compressed"]
    check("bytes of model.sct", compressed["nbytes"], len(sct))
    check("model.sct unpacks and packs again to the same bytes", True, formats.pack(formats.unpack(sct)) == sct)
    check("model.onnx packs to model.sct", True, sct in (formats.pack(onnx), formats.pack(dequantised(onnx))))
    check("nonzeros, counted in the unpacked file", compressed["nnz"], _count_nonzeros(formats.unpack(sct), report))
    _check_outputs(folder, report, onnx, sct, data_dir, check, trust)
    reached = {"nbytes": float(len(sct)), "nnz": float(compressed["nnz"]), "macs": float(compressed["macs"])}
    for row in report["budget"]:
        found = reached.get(row["name"], row["reached"])
        check(f"budget {row['name']}", f"<= {row['asked']:g}", found, passed=bool(found <= row["asked"] + 1e-12))
    passed = all(c["passed"] is not False for c in checks)
    return {"folder": str(folder), "passed": passed, "checks": checks}


def _count_nonzeros(onnx: bytes, report: dict[str, Any]) -> int:
    """Nonzero weights of the layers that the report lists, counted in the ONNX file's initializers."""
    import onnx as onnx_package
    from onnx import numpy_helper

    names = {layer["name"] for layer in report["layers"] if layer.get("op") not in ("bias", "norm")}
    graph = onnx_package.load_model_from_string(onnx).graph
    counted = {i.name: int(np.count_nonzero(numpy_helper.to_array(i))) for i in graph.initializer}
    return sum(counted.get(name, 0) for name in names)


def _check_outputs(
    folder: Path,
    report: dict[str, Any],
    onnx: bytes,
    sct: bytes,
    data_dir: Path | None,
    check: Callable[..., None],
    trust: bool,
) -> None:
    from secateur import api, written
    from secateur.recipe import Recipe

    recipe = Recipe.from_dict(recipe_keys(folder / "recipe.yaml"))
    if recipe.data is None or recipe.model is None:
        check("outputs and metric", None, None, None, "the run was made from Python objects; call Result.verify there")
        return
    if not trust:
        written.check_ours(folder, recipe.model, recipe.data)
    splits = api.load_data(recipe.data, data_dir)
    module = api.load(folder, trust=trust)
    inputs, targets = api.whole_split(splits, "test")
    names = [i.name for i in _session(sct).get_inputs()]
    feeds = dict(zip(names, inputs, strict=True))
    few = {k: v[:256] for k, v in feeds.items()}
    result = outputs_agree(sct, onnx, module, few)
    check(
        "engine = ONNX Runtime = PyTorch",
        f"<= {result['tolerance']:.3g}",
        result["max_abs_error"],
        passed=result["agree"],
        note=", ".join(f"{k} {v:.2g}" for k, v in result["errors"].items()) + f"; onnxruntime: {result['oracle']}",
    )
    logits = _session(sct).run(None, feeds)[0]
    metric = report["compressed"]["metric"]
    if metric["name"] == "accuracy":
        found = float((logits.argmax(-1) == targets).mean())
        check("accuracy on the test split, engine", metric["value"], found, passed=abs(found - metric["value"]) < 1e-9)
    else:
        check(f"metric {metric['name']}", metric["value"], None, None, "computed by the user's own function")


def _session(sct: bytes) -> Any:
    from secateur.engine import InferenceSession

    return InferenceSession(sct)


def recipe_keys(path: Path) -> dict[str, Any]:
    """The recipe keys of a resolved recipe.yaml (it also records sites and versions)."""
    import yaml

    from secateur.recipe import Recipe

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise FormatError(f"{path}: not valid YAML ({e})") from None
    if not isinstance(raw, dict):
        raise FormatError(f"{path}: not a recipe")
    return {k: v for k, v in raw.items() if k in Recipe.model_fields}
