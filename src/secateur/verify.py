"""Recomputes what a run claims, from its written files alone: `secateur verify DIR`.

Outputs: the engine on `model.sct`, ONNX Runtime on `model.onnx` and PyTorch on `model.safetensors` + `surgery.json`
must agree. The tolerance is computed, not chosen: a float32 net commits a rounding error that is seen by running the
same module in float64; every runtime may sum in another order and is allowed `SLACK` times that error, plus `FLOOR`
units in the last place of the largest output for nets so small that the observed error is zero by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur import membership, norms, steps, stored, written
from secateur.errors import ConstraintError, FormatError, UsageError
from secateur.importing import told
from secateur.limits import read_yaml
from secateur.showing import Shown, table

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from secateur.data.spec import Splits
    from secateur.engine.oracle import Oracle
    from secateur.graph import Example
    from secateur.recipe import Recipe
    from secateur.types import Term

SLACK = 8.0
FLOOR = 32.0
FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "report.json", "recipe.yaml")
LAYERS = "nonzeros and values of each layer, counted in the unpacked file"
TOTAL_NNZ = "nonzeros of the rebuilt module"
TOTAL_MACS = "multiply-adds of the rebuilt module"
TENSORS = "tensors of model.safetensors are those of model.sct"
SETS = "members of their sets"
TERMS = "sets that the recipe asks for"
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
    import torch

    from secateur.copying import copied
    from secateur.graph.doubled import in_double

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
    _check_files(report, onnx, sct, checks)
    _check_tensors(report, sct, _tensors(folder / "model.safetensors"), checks)
    _check_sets(folder, report, onnx, checks)
    reached = {"nbytes": float(len(sct))}
    if given is not None:
        reached |= _check_given(given, report, (onnx, sct), checks)
    elif recipe.data is None or recipe.model is None:
        why = "the run was made from Python objects; call Result.verify there"
        for name in (TOTAL_NNZ, TOTAL_MACS, OUTPUTS):
            checks.skip(name, why)
    else:
        reached |= _check_module(folder, recipe, report, (onnx, sct), data_dir, checks, trust)
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

    def nothing_wrong(self, name: str, n: int, wrong: list[str], note: str = "") -> None:
        """`n` things were looked at; `wrong` has a sentence for each that is not as claimed, `note` is said if none."""
        self.add(name, f"{n} of {n}", f"{n - len(wrong)} of {n}", not wrong, "; ".join(wrong[:3]) or note)

    def skip(self, name: str, why: str, claimed: Any = None) -> None:
        """A check that could not be made."""
        self.add(name, claimed, None, None, why)


def _check_files(report: dict[str, Any], onnx: bytes, sct: bytes, checks: _Checks) -> None:
    """What needs nothing but the two model files."""
    from secateur import formats
    from secateur.export.onnx import dequantised

    checks.equal("bytes of model.sct", report["compressed"].get("nbytes"), len(sct))
    unpacked = _unpacked(sct)
    checks.equal("model.sct unpacks and packs again to the same bytes", True, formats.pack(unpacked) == sct)
    checks.equal("model.onnx packs to model.sct", True, sct in (formats.pack(onnx), formats.pack(dequantised(onnx))))


def _unpacked(sct: bytes) -> bytes:
    from secateur import formats

    try:
        return formats.unpack(sct)
    except FormatError as e:
        raise FormatError(f"model.sct: {e}") from None


def _tensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except SafetensorError as e:
        raise FormatError(f"{path}: damaged ({e})") from None


def _check_tensors(report: dict[str, Any], sct: bytes, state: Mapping[str, Array], checks: _Checks) -> None:
    """The layers of the report, counted in the packed file, and the packed file's tensors against model.safetensors.

    Every layer and every tensor is accounted for: found in the packed file under its name or rearranged, or named by
    the report as absent (folded into constants, or of no effect), and then counted in model.safetensors.
    """
    onnx = _unpacked(sct)
    found = stored.find(onnx, state)
    floats = {k: v for k, v in state.items() if v.dtype.kind == "f"}
    expected = norms.as_written(onnx, floats)
    # The report counts a batch-norm as the module has it, the file holds it merged with its statistics.
    same = {k: v for k, v in reversed(found.copies) if expected[k] is floats[k]}
    held: dict[str, Array] = {**floats, **same}
    wrong = [line for row in report["layers"] for line in _unlike(row, held.get(row["name"]))]
    checks.nothing_wrong(LAYERS, len(report["layers"]), wrong)
    other = [f"{k} differs" for k, v in found.copies if not np.array_equal(v, expected[k])]
    other += [f"{k} is not in it" for k in found.absent if k not in report.get("absent", found.absent)]
    counted = f"{len(found.rearranged)} of them rearranged" if found.rearranged else ""
    missing = f"folded or of no effect: {', '.join(found.absent)}" if found.absent else ""
    checks.nothing_wrong(TENSORS, len(floats), other, "; ".join(filter(None, [counted, missing])))


def _unlike(row: Mapping[str, Any], values: Array | None) -> list[str]:
    """What the report says of a layer and the files do not hold."""
    if values is None:
        return [f"{row['name']} is in no file"]
    found = {"nnz": int(np.count_nonzero(values)), "n_values": len(np.unique(values[values != 0]))}
    wrong = [f"{row['name']}: {k} {row[k]}, found {v}" for k, v in found.items() if k in row and row[k] != v]
    if list(row["shape"]) != list(values.shape):
        wrong.append(f"{row['name']}: shape {row['shape']}, found {list(values.shape)}")
    return wrong[:1]


def _check_module(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    files: tuple[bytes, bytes],
    data_dir: Path | None,
    checks: _Checks,
    trust: bool,
) -> dict[str, float]:
    """What needs the rebuilt module or the data; what the budget's kinds came to."""
    from secateur import api, record

    onnx, sct = files
    if not trust:
        written.check_ours(folder, recipe.model or "", recipe.data or "")
    splits = api.load_data(recipe.data or "", data_dir)
    module = api.load(folder, trust=trust)
    example = api.example_of(module, splits.train, recipe)
    rows = written.fixed_batch(onnx) if example.batched else None
    names = [i.name for i in _session(sct).get_inputs()]
    fed = api.real_inputs(names, splits, example, rows or 256)
    flat = record.Flat(module, example.inputs, names)
    reached = _check_network(module, example, (flat, {n: fed[n] for n in names}), report, files, checks)
    _check_recipe(folder, recipe, report, splits.train, onnx, checks)
    drop = _check_metrics(folder, recipe, report, splits, module, _engine(sct, rows), checks)
    return {**reached, "accuracy_drop": drop}


def _check_given(given: Given, report: dict[str, Any], files: tuple[bytes, bytes], checks: _Checks) -> dict[str, float]:
    """The same for a run of Python objects."""
    from secateur import record
    from secateur.training import metrics
    from secateur.training.batches import call

    session = _session(files[1])
    names = [i.name for i in session.get_inputs()]
    rows = written.fixed_batch(files[0]) if given.example.batched else None
    some = given.inputs if rows is None else given.example.few(given.inputs, rows)
    fed, flat = record.feeds(names, some), record.Flat(given.module, given.inputs, names)
    reached = _check_network(given.module, given.example, (flat, fed), report, files, checks)
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
    checks: _Checks,
) -> dict[str, float]:
    """Counts and outputs of the module; its nonzeros and multiply-adds.

    Args:
        asked: the module as it is called with arrays by name, and these.
    """
    from secateur import graph
    from secateur.counts import sizes

    onnx, sct = files
    traced = graph.trace(module, example)
    counted = sizes(module, traced, len(sct))
    checks.equal(TOTAL_NNZ, report["compressed"].get("nnz"), counted["nnz"])
    checks.equal(TOTAL_MACS, report["compressed"].get("macs"), counted["macs"])
    result = outputs_agree(sct, onnx, *asked)
    errors = ", ".join(f"{k} {v:.2g}" for k, v in result["errors"].items()) + f"; onnxruntime: {result['oracle']}"
    if result["apart"]:
        errors += f"; {result['apart']:.1%} of the examples lie on a step of the network"
    if result["failed"]:
        errors += f" failed ({result['failed']})"
    passed = result["agree"] and not result["failed"]
    checks.add(OUTPUTS, f"<= {result['tolerance']:.3g}", result["max_abs_error"], passed, errors)
    return {"nnz": float(counted["nnz"]), "macs": float(counted["macs"])}


def _check_sets(folder: Path, report: dict[str, Any], onnx: bytes, checks: _Checks) -> None:
    """Every weight of the written file is in the set that the report names, at its level, on the shapes of then."""
    if "absent" not in report:
        checks.skip(SETS, "the report is older than this check")
        return
    wrong: list[str] = []
    cuts, state = written.surgery_of(folder), _tensors(folder / "model.safetensors")
    for row in report["terms"]:
        try:
            asked = membership.from_record(row)
            wrong += membership.outside(asked, onnx, cuts, state)
        except (TypeError, ValueError, IndexError, KeyError, RuntimeError, UsageError, ConstraintError) as e:
            raise FormatError(f"report.json: terms: {row['site']}: level {row['level']!r:.40} ({told(e)})") from None
    checks.nothing_wrong(SETS, len(report["terms"]), wrong)


def _check_recipe(
    folder: Path, recipe: Recipe, report: dict[str, Any], train: Any, onnx: bytes, checks: _Checks
) -> None:
    """The report's terms are those that the recipe asks for of its model; the levels it gives hold in the file."""
    if "absent" not in report:
        return
    cuts = written.surgery_of(folder)
    n_cuts = max((row["n_cuts"] for row in report["terms"]), default=0)
    found = {row["site"]: {k: v for k, v in row.items() if k != "level"} for row in report["terms"]}
    asked = {
        t.site.name: {k: v for k, v in membership.to_record(t, None, n_cuts).items() if k != "level"}
        for t in _terms(recipe, cuts[:n_cuts], train)
    }
    wrong = [f"{name} is not as the recipe asks" for name in asked if found.get(name) != asked[name]]
    wrong += [f"{name} is not asked for" for name in found.keys() - asked.keys()]
    given = tuple(t for t in _terms(recipe, [], train) if t.given)
    state = _tensors(folder / "model.safetensors")
    wrong += membership.outside(membership.Asked(given, {}), onnx, cuts, state)
    checks.nothing_wrong(TERMS, len(asked), sorted(wrong))


def _terms(recipe: Recipe, cuts: Sequence[Mapping[str, Any]], train: Any) -> list[Term]:
    """The recipe's terms on its model after some of the cuts."""
    from secateur import api, graph
    from secateur.unwrapping import plain

    model = plain(api.load_model(recipe))[0]
    for cut in cuts:
        model = graph.apply_surgery(model, cut)
    return list(recipe.build_terms(*graph.trace(model, api.example_of(model, train, recipe)).free))


def _check_metrics(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    splits: Splits,
    module: nn.Module,
    engine: nn.Module,
    checks: _Checks,
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
    if beside := metrics.scored(make(held_out), module)[1]:
        noted = {k: claimed["metric"].get(k) for k in beside}
        same = all(v is not None and abs(v - beside[k]) <= 1e-5 * max(abs(beside[k]), 1e-3) for k, v in noted.items())
        checks.add(f"{' and '.join(beside)} on the {split} split, PyTorch".replace("_", " "), noted, beside, same)
    found = measured(module, splits.valid)
    compare(f"{name} on the validation split, PyTorch", claimed.get("metric_valid"), found)
    dense, label = report["dense"].get("metric_valid"), f"{name} of the dense net on the validation split"
    net = written.dense(folder, api.load_model(recipe), recipe.dense is not None)
    if net is not None:
        dense, said = measured(net, splits.valid), dense
        compare(label, said, dense)
    else:
        checks.skip(label, f"{written.DENSE} is missing: the dense net was trained in the run and is in no file", dense)
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
