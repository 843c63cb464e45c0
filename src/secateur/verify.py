"""Recomputes what a run claims, from its written files alone: `secateur verify DIR`.

Outputs: the engine on `model.sct`, ONNX Runtime on `model.onnx` and PyTorch on `model.safetensors` + `surgery.json`
must agree. The tolerance is computed, not chosen: a float32 net commits a rounding error that is seen by running the
same module in float64; every runtime may sum in another order and is allowed `SLACK` times that error, plus `FLOOR`
units in the last place of the largest output for nets so small that the observed error is zero by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur import steps
from secateur.errors import ConstraintError, FormatError, UsageError
from secateur.importing import told
from secateur.limits import read_yaml
from secateur.showing import Shown, table

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from secateur.data.spec import Splits
    from secateur.engine.oracle import Oracle
    from secateur.graph import Example, Traced
    from secateur.recipe import Recipe

SLACK = 8.0
FLOOR = 32.0
FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "report.json", "recipe.yaml")
TOTAL_NNZ = "nonzeros of the rebuilt module"
TOTAL_MACS = "multiply-adds of the rebuilt module"
TENSORS = "tensors of model.safetensors are those of model.sct"
SETS = "members of their sets"
OUTPUTS = "engine = ONNX Runtime = PyTorch"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Given:
    """What a run of Python objects is checked with, since its folder names neither model nor data.

    Attributes:
        module: the compressed network.
        inputs: a batch for the comparison of runtimes, in the form that the module takes.
        example: what the network was traced on.
        evaluate: the metric on the validation data; None = metrics are not checked.
    """

    module: nn.Module
    inputs: Any
    example: Example
    evaluate: Callable[[nn.Module], float] | None = None


def outputs_agree(sct: bytes, onnx: bytes, module: nn.Module | None, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Run the same inputs everywhere and compare.

    Args:
        sct, onnx: the two files' bytes.
        module: the compressed net as an `nn.Module`, or None when it cannot be rebuilt.
        inputs: arrays by ONNX input name, first axis = examples.
    Returns:
        max_abs_error (largest over all pairs), tolerance, agree, `apart` (of a network with steps: the share of
        examples that lie on one and may differ by more, `steps.py`), `errors` by pair, `outputs` by runtime, `oracle`:
        who stands for ONNX Runtime among them, in words (None: not installed). That is not the deployed ONNX Runtime
        where the file computes in integers, whose products saturate on some CPUs. `failed`: why it could not run it.
    """
    from secateur.engine import InferenceSession

    names = list(inputs)
    outputs: dict[str, list[Array]] = {
        "engine": InferenceSession(sct).run(None, dict(inputs)),
        "engine_onnx": InferenceSession(onnx).run(None, dict(inputs)),
    }
    oracle, failed, has_steps = _oracle(onnx), None, steps.has_steps(onnx)
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
    return {
        "max_abs_error": worst,
        "tolerance": tolerance,
        "agree": bool(worst <= tolerance or 0 < apart <= steps.SHARE),
        "apart": apart,
        "errors": errors,
        "outputs": outputs,
        "oracle": oracle.name if oracle is not None else None,
        "failed": failed,
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

    from secateur.graph.doubled import in_double

    def run(net: nn.Module, cast: Callable[[torch.Tensor], torch.Tensor]) -> list[Array]:
        with torch.no_grad():
            y = net(*[cast(torch.from_numpy(np.ascontiguousarray(a))) for a in arrays])
        items = y if isinstance(y, tuple | list) else list(y.values()) if isinstance(y, dict) else [y]
        return [t.numpy() for t in items]

    net = copy.deepcopy(module).eval()
    single = run(net, lambda t: t)
    with in_double():
        return single, run(net.double(), lambda t: t.double() if t.is_floating_point() else t)


def _gap(a: list[Array], b: list[Array]) -> float:
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    gaps = [np.abs(x.astype(np.float64) - y.astype(np.float64)) for x, y in zip(a, b, strict=True)]
    worst = max((float(g.max(initial=0.0)) for g in gaps), default=0.0)
    return worst if np.isfinite(worst) else float("inf")


def verify(
    folder: str | Path, data_dir: Path | None = None, *, trust: bool = False, given: Given | None = None
) -> Shown:
    """Check a run's folder against its own report.

    Bytes, nonzeros, multiply-adds, membership of the sets, outputs, metrics and budget are computed anew from the
    written files and the data; the report only says what is claimed.

    Args:
        trust: run code outside secateur that the folder names as model or data.
        given: the network and inputs of a run that was made from Python objects (`Result.verify` knows them).
    Returns:
        `{"folder", "passed", "checks": [{"name", "passed", "claimed", "found", "note"}]}`; prints as a table. A check
        that could not be made (no data, model given as an object) is listed with `passed` None and says why.
    Raises:
        UsageError: the folder is not a run's folder, or needs trust. FormatError: a file in it is damaged.
    """
    from secateur.recipe import Recipe
    from secateur.report import records

    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder}: {', '.join(missing)} missing; give the folder of a finished `secateur compress` run"
        )
    report, recipe = records.read(folder), Recipe.from_dict(recipe_keys(folder / "recipe.yaml"))
    onnx, sct = (folder / "model.onnx").read_bytes(), (folder / "model.sct").read_bytes()
    checks = _Checks()
    weights = _check_files(report, onnx, sct, checks)
    reached = {"nbytes": float(len(sct))}
    if given is not None:
        reached |= _check_given(given, report, (onnx, sct), weights, checks)
    elif recipe.data is None or recipe.model is None:
        why = "the run was made from Python objects; call Result.verify there"
        for name in (TOTAL_NNZ, TOTAL_MACS, TENSORS, SETS, OUTPUTS):
            checks.skip(name, why)
    else:
        reached |= _check_module(folder, recipe, report, (onnx, sct), weights, data_dir, checks, trust)
    _check_budget(recipe, report, reached, checks)
    passed = all(c["passed"] is not False for c in checks.rows)
    return Shown({"folder": str(folder), "passed": passed, "checks": checks.rows}, _show)


def _show(found: Mapping[str, Any], console: Console) -> None:
    words = {True: "ok", False: "MISMATCH", None: "not checked"}
    rows = [[words[c["passed"]], c["name"], str(c["claimed"]), str(c["found"]), c["note"]] for c in found["checks"]]
    console.print(table(found["folder"], ["", "check", "claimed", "found", "note"], rows))


class _Checks:
    """The list that `verify` answers."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def equal(self, name: str, claimed: Any, found: Any, within: float = 0.0) -> None:
        """`found` must be what was claimed; numbers may differ by `within`."""
        numbers = within > 0 and claimed is not None
        self.add(name, claimed, found, abs(found - claimed) <= within if numbers else claimed == found)

    def add(self, name: str, claimed: Any, found: Any, passed: bool | None, note: str = "") -> None:
        """One row."""
        self.rows.append({"name": name, "passed": passed, "claimed": claimed, "found": found, "note": note})

    def nothing_wrong(self, name: str, n: int, wrong: list[str]) -> None:
        """`n` things were looked at; `wrong` has a sentence for each that is not as claimed."""
        self.add(name, f"{n} of {n}", f"{n - len(wrong)} of {n}", not wrong, "; ".join(wrong[:3]))

    def skip(self, name: str, why: str, claimed: Any = None) -> None:
        """A check that could not be made."""
        self.add(name, claimed, None, None, why)


def _check_files(report: dict[str, Any], onnx: bytes, sct: bytes, checks: _Checks) -> dict[str, Array]:
    """What needs nothing but the two model files; the weights of `model.sct` as float arrays by name."""
    from secateur import formats
    from secateur.export.onnx import dequantised

    try:
        unpacked = formats.unpack(sct)
    except FormatError as e:
        raise FormatError(f"model.sct: {e}") from None
    checks.equal("bytes of model.sct", report["compressed"].get("nbytes"), len(sct))
    checks.equal("model.sct unpacks and packs again to the same bytes", True, formats.pack(unpacked) == sct)
    checks.equal("model.onnx packs to model.sct", True, sct in (formats.pack(onnx), formats.pack(dequantised(onnx))))
    weights = _initializers(dequantised(unpacked))
    wrong = []
    for row in report["layers"]:
        values = weights.get(row["name"])
        if values is None:
            continue
        found = {"nnz": int(np.count_nonzero(values)), "n_values": len(np.unique(values[values != 0]))}
        wrong += [f"{row['name']}: {k} {row[k]}, found {v}" for k, v in found.items() if k in row and row[k] != v]
        if sorted(row["shape"]) != sorted(values.shape):
            wrong.append(f"{row['name']}: shape {row['shape']}, found {list(values.shape)}")
    known = sum(row["name"] in weights for row in report["layers"])
    checks.nothing_wrong("nonzeros and values of each layer, counted in the unpacked file", known, wrong)
    return weights


def _initializers(onnx: bytes) -> dict[str, Array]:
    """Arrays by parameter name; what the export turned lies under `name.T` there and is turned back."""
    import onnx as onnx_package
    from onnx import numpy_helper

    found: dict[str, Array] = {}
    for i in onnx_package.load_model_from_string(onnx).graph.initializer:
        array = numpy_helper.to_array(i)
        found[i.name.removesuffix(".T")] = array.T if i.name.endswith(".T") else array
    return found


def _check_module(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    files: tuple[bytes, bytes],
    weights: Mapping[str, Array],
    data_dir: Path | None,
    checks: _Checks,
    trust: bool,
) -> dict[str, float]:
    """What needs the rebuilt module or the data; what the budget's kinds came to."""
    from secateur import api, written
    from secateur.job import first_batch
    from secateur.training.batches import tensors

    onnx, sct = files
    if not trust:
        written.check_ours(folder, recipe.model or "", recipe.data or "")
    splits = api.load_data(recipe.data or "", data_dir)
    module = api.load(folder, trust=trust)
    example = api.example_of(module, splits.train, recipe)
    rows = written.fixed_batch(onnx) if example.batched else None
    if example.batched:
        arrays = [a[: rows or 256] for a in api.whole_split(splits, "test")[0]]
    else:
        arrays = [t.numpy() for t in tensors(first_batch(splits.valid if splits.test is None else splits.test))]
    fed = dict(zip([i.name for i in _session(sct).get_inputs()], arrays, strict=True))
    reached = _check_network(module, example, (module, fed), report, files, weights, checks)
    drop = _check_metrics(recipe, report, splits, module, _engine(sct, rows), checks)
    return {**reached, "accuracy_drop": drop}


def _check_given(
    given: Given, report: dict[str, Any], files: tuple[bytes, bytes], weights: Mapping[str, Array], checks: _Checks
) -> dict[str, float]:
    """The same for a run of Python objects."""
    from secateur import record, written
    from secateur.training import metrics
    from secateur.training.batches import call

    session = _session(files[1])
    names = [i.name for i in session.get_inputs()]
    rows = written.fixed_batch(files[0]) if given.example.batched else None
    some = given.inputs if rows is None else given.example.few(given.inputs, rows)
    fed, flat = record.feeds(names, some), record.Flat(given.module, given.inputs, names)
    reached = _check_network(given.module, given.example, (flat, fed), report, files, weights, checks)
    claimed, label = report["compressed"].get("metric_valid"), "metric on the validation data"
    if given.evaluate is None:
        checks.skip(label, "no evaluate was given", claimed)
        return reached
    with metrics.evaluating(given.module):
        found = float(given.evaluate(given.module))
        like = call(given.module, given.inputs)
    checks.equal(f"{label}, PyTorch", claimed, found, within=1e-5 * abs(found))
    if (by_engine := report["verify"].get("metric_engine")) is not None:
        engine = float(given.evaluate(record.Session(session, like, rows)))
        checks.equal(f"{label}, engine", by_engine, engine, within=1e-5 * abs(engine))
    drop = report["dense"]["metric_valid"] - found
    return {**reached, "accuracy_drop": drop if report["compressed"]["metric"]["higher_is_better"] else -drop}


def _check_network(
    module: nn.Module,
    example: Example,
    asked: tuple[nn.Module, Mapping[str, Array]],
    report: dict[str, Any],
    files: tuple[bytes, bytes],
    weights: Mapping[str, Array],
    checks: _Checks,
) -> dict[str, float]:
    """Counts, tensors, sets and outputs of the module; its nonzeros and multiply-adds.

    Args:
        asked: the module as it is called with arrays by name, and these.
    """
    from secateur import graph
    from secateur.job import sizes

    onnx, sct = files
    traced = graph.trace(module, example)
    counted = sizes(module, traced, len(sct))
    checks.equal(TOTAL_NNZ, report["compressed"].get("nnz"), counted["nnz"])
    checks.equal(TOTAL_MACS, report["compressed"].get("macs"), counted["macs"])
    state = {k: v.numpy() for k, v in module.state_dict().items()}
    shared = [k for k in weights if k in state]
    other = [f"{k} differs" for k in shared if not np.array_equal(weights[k], state[k])]
    checks.nothing_wrong(TENSORS, len(shared), other)
    _check_sets(report, module, traced, checks)
    result = outputs_agree(sct, onnx, *asked)
    errors = ", ".join(f"{k} {v:.2g}" for k, v in result["errors"].items()) + f"; onnxruntime: {result['oracle']}"
    if result["apart"]:
        errors += f"; {result['apart']:.1%} of the examples lie on a step of the network"
    if result["failed"]:
        errors += f" failed ({result['failed']})"
    passed = result["agree"] and not result["failed"]
    checks.add(OUTPUTS, f"<= {result['tolerance']:.3g}", result["max_abs_error"], passed, errors)
    return {"nnz": float(counted["nnz"]), "macs": float(counted["macs"])}


def _check_sets(report: dict[str, Any], module: nn.Module, traced: Traced, checks: _Checks) -> None:
    """Every constrained weight is a member of its set, at the level that the report says."""
    from secateur import views
    from secateur.recipe import build_constraint

    if "sets" not in report:
        checks.skip(SETS, "the report is older than this check")
        return
    sites = {s.name: s for s in (*traced.sites, *traced.groups)}
    params = {k: p.detach() for k, p in module.named_parameters()}
    outside = []
    for row in report["sets"]:
        site = sites.get(row["name"])
        if site is None:
            outside.append(f"{row['name']} is not in the model")
            continue
        try:
            constraint = build_constraint(row["with"])
            inside = constraint.contains(views.matrix(site, constraint.view, params), _level(row["level"]))
        except (TypeError, ValueError, UsageError, ConstraintError) as e:  # set and level come from a file
            raise FormatError(f"report.json: sets: {row['name']}: level {row['level']!r:.40} ({e})") from None
        if not inside:
            outside.append(f"{row['name']} is no member of {row['with']} at level {row['level']}")
    checks.nothing_wrong(SETS, len(report["sets"]), outside)


def _level(given: Any) -> Any:
    return tuple(_level(x) for x in given) if isinstance(given, list) else given


def _check_metrics(
    recipe: Recipe, report: dict[str, Any], splits: Splits, module: nn.Module, engine: nn.Module, checks: _Checks
) -> float:
    """The metric on the test split by the engine and on the validation split by PyTorch; the accuracy drop there."""
    from torch.nn.functional import mse_loss

    from secateur import api
    from secateur.training import metrics

    claimed = report["compressed"]
    name = claimed["metric"]["name"]  # a run by name is judged by accuracy or mse
    make = metrics.accuracy if name == "accuracy" else lambda part: metrics.mean_loss(part, mse_loss)

    def measured(net: nn.Module, part: Any) -> float:
        with metrics.evaluating(net):
            return float(make(part)(net))

    def compare(label: str, value: Any, found: float) -> None:
        checks.equal(label, value, found, within=1e-9 if name == "accuracy" else 1e-5 * abs(found))

    held_out = splits.test if splits.test is not None else splits.valid
    split = "test" if splits.test is not None else "validation"
    compare(f"{name} on the {split} split, engine", claimed["metric"]["value"], measured(engine, held_out))
    found = measured(module, splits.valid)
    compare(f"{name} on the validation split, PyTorch", claimed.get("metric_valid"), found)
    dense = report["dense"].get("metric_valid")
    if recipe.weights is not None and recipe.dense is None:  # else the dense net is in no file
        dense, said = measured(api.load_model(recipe), splits.valid), dense
        compare(f"{name} of the dense net on the validation split", said, dense)
    drop = dense - found if name == "accuracy" else found - dense
    checks.equal("drop against the dense net, validation split", claimed.get("drop_valid"), drop, within=1e-5)
    return float(drop)


def _check_budget(recipe: Recipe, report: dict[str, Any], reached: Mapping[str, float], checks: _Checks) -> None:
    """The report lists what the recipe asks for, and each entry holds for what was found."""
    asked = {x.kind: x.value for x in recipe.limits()}
    checks.equal("budget of recipe.yaml", {r["name"]: r["asked"] for r in report["budget"]}, asked)
    for row in report["budget"]:
        name, claim = f"budget {row['name']}", f"<= {row['asked']:g}"
        if row["name"] not in reached:
            checks.skip(name, "the run was made from Python objects; Result.verify(evaluate=) checks it", claim)
            continue
        found = reached[row["name"]]
        same = abs(found - row["reached"]) <= 1e-5 * max(abs(found), 1.0)
        note = "" if same else f"the report says {row['reached']:g}"
        checks.add(name, claim, found, bool(same and row["met"] and found <= row["asked"] + 1e-12), note)


def _engine(sct: bytes, rows: int | None) -> nn.Module:
    from secateur import record

    return record.Session(_session(sct), rows=rows)


def _session(sct: bytes) -> Any:
    from secateur.engine import InferenceSession

    return InferenceSession(sct)


def recipe_keys(path: Path) -> dict[str, Any]:
    """The recipe keys of a resolved recipe.yaml (it also records sites and versions)."""
    from secateur.recipe import Recipe

    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise FormatError(f"{path}: not valid YAML ({e})") from None
    if not isinstance(raw, dict):
        raise FormatError(f"{path}: not a recipe")
    return {k: v for k, v in raw.items() if k in Recipe.model_fields}
