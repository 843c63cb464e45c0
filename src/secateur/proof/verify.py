"""Recomputes what a run claims, from its written files alone: `secateur verify DIR`.

Outputs: the engine on `model.sct`, ONNX Runtime on `model.onnx` and PyTorch on `model.safetensors` + `surgery.json`
must agree (`agreement.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn.functional import mse_loss

from secateur import data, formats, graph
from secateur.budget import kinds
from secateur.engine import InferenceSession
from secateur.errors import ConstraintError, FormatError, UsageError
from secateur.export import membership, norms, stored, written
from secateur.export.onnx import dequantised
from secateur.export.rebuild import check_ours, dense_net, load_model, rebuild, surgery_of
from secateur.graph.unwrapping import plain
from secateur.proof import levels, readings
from secateur.proof.agreement import outputs_agree
from secateur.proof.checks import Checks
from secateur.proof.judge import Flat, Session, feeds, real_inputs
from secateur.recipe import Recipe
from secateur.report import records
from secateur.run.net import example_of, sizes
from secateur.shell.importing import told
from secateur.shell.showing import Shown, table
from secateur.training import metrics
from secateur.training.batches import call
from secateur.types import Inventory

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from secateur.contracts import Term
    from secateur.data.spec import Splits
    from secateur.graph import Example

FILES = ("model.onnx", "model.sct", "model.safetensors", "surgery.json", "report.json", "recipe.yaml")
LAYERS = "nonzeros and values of each layer, counted in the unpacked file"
_MODULE = "the rebuilt module"
TENSORS = "tensors of model.safetensors are those of model.sct"
SETS = "members of their sets"
GRIDS = "grids of activations"
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


@dataclass(frozen=True)
class _Files:
    """What a run's folder holds, read once.

    Attributes:
        onnx, sct: the two model files. unpacked: the ONNX file that `sct` gives. tighter: the ONNX files of all levels
            but the loosest.
        state: `model.safetensors` by name. cuts: `surgery.json`.
    """

    onnx: bytes
    sct: bytes
    unpacked: bytes
    state: Mapping[str, Array]
    cuts: Sequence[Mapping[str, Any]]
    tighter: tuple[bytes, ...] = ()


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

    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder}: {', '.join(missing)} missing; give the folder of a finished `secateur compress` run"
        )
    report, recipe = records.read(folder), Recipe.of_run(folder / "recipe.yaml")
    files, checks = _files(folder), Checks()
    reached = _check_files(report, files, checks)
    _check_tensors(report, files, checks)
    _check_sets(report, files, checks)
    _check_activations(report, files, checks)
    levels.check_sets(report, [files.unpacked, *files.tighter], files.cuts, checks)
    if given is not None:
        reached |= _check_given(given, report, files, checks)
    elif recipe.data is None or recipe.model is None:
        why = "the run was made from Python objects; call Result.verify there"
        for name in (*(counted_in_module(kind) for kind in kinds.counted() if kind not in reached), OUTPUTS):
            checks.skip(name, why)
    else:
        reached |= _check_module(folder, recipe, report, files, data_dir, checks, trust)
    _check_budget(recipe, report, reached, files, checks)
    passed = all(c["passed"] is not False for c in checks.rows)
    return Shown({"folder": str(folder), "passed": passed, "checks": checks.rows}, _show)


def _show(found: Mapping[str, Any], console: Console) -> None:
    words = {True: "ok", False: "MISMATCH", None: "not checked"}
    rows = [[words[c["passed"]], c["name"], str(c["claimed"]), str(c["found"]), c["note"]] for c in found["checks"]]
    console.print(table(found["folder"], ["", "check", "claimed", "found", "note"], rows))


def counted_in_module(kind: str) -> str:
    """The name of the check of a cost that is counted in the weights."""
    return f"{kinds.meter(kind).unit} of {_MODULE}"


def _files(folder: Path) -> _Files:
    onnx, sct = (folder / "model.onnx").read_bytes(), (folder / "model.sct").read_bytes()
    try:
        unpacked = formats.unpack(sct)
    except FormatError as e:
        raise FormatError(f"model.sct: {e}") from None
    state, tighter = _tensors(folder / "model.safetensors"), levels.read(folder, sct)
    return _Files(onnx, sct, unpacked, state, surgery_of(folder), tighter)


def _check_files(report: dict[str, Any], files: _Files, checks: Checks) -> dict[str, float]:
    """What needs nothing but the two model files; what these alone tell of the budget's kinds."""
    onnx, sct = files.onnx, files.sct
    told_by_file = [kind for kind, meter in kinds.counted().items() if meter.in_file]
    reached = kinds.measured(Inventory((), lambda: len(sct)), told_by_file)
    _check_costs(report, reached, "model.sct", checks)
    if files.tighter:
        levels.check_files(report, [onnx, *files.tighter], sct, checks)
        return reached
    checks.equal("model.sct unpacks and packs again to the same bytes", True, formats.pack(files.unpacked) == sct)
    checks.equal("model.onnx packs to model.sct", True, sct in (formats.pack(onnx), formats.pack(dequantised(onnx))))
    return reached


def _check_costs(report: dict[str, Any], found: Mapping[str, float], where: str, checks: Checks) -> None:
    """What the report says of the written network's costs is what the meters measure."""
    for kind, cost in found.items():
        name = f"{kinds.meter(kind).unit} of {where}"
        if kind in report["compressed"] or kind in records.NET:
            checks.equal(name, report["compressed"].get(kind), cost)
        else:
            checks.skip(name, "the report was made without this meter")


def _tensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except SafetensorError as e:
        raise FormatError(f"{path}: damaged ({e})") from None


def _check_tensors(report: dict[str, Any], files: _Files, checks: Checks) -> None:
    """The layers of the report, counted in the packed file, and the packed file's tensors against model.safetensors.

    Every layer and every tensor is accounted for: found in the packed file under its name or rearranged, or named by
    the report as absent (folded into constants, or of no effect), and then counted in model.safetensors.
    """
    onnx, state = files.unpacked, files.state
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
    files: _Files,
    data_dir: Path | None,
    checks: Checks,
    trust: bool,
) -> dict[str, float]:
    """What needs the rebuilt module or the data; what the budget's kinds came to."""

    if not trust:
        check_ours(folder, recipe.model or "", recipe.data or "")
    splits = data.load(recipe.data or "", data_dir)
    module = rebuild(folder, None, trust)
    example = example_of(module, splits.train, recipe)
    rows = written.fixed_batch(files.onnx) if example.batched else None
    names = [i.name for i in _session(files.sct).get_inputs()]
    fed = real_inputs(names, splits, example, rows or 256)
    flat = Flat(module, example.inputs, names)
    at = levels.At(module, files.sct, lambda m: Flat(m, example.inputs, names), {n: fed[n] for n in names}, rows)
    levels.check_outputs(report, files.tighter, at, checks)
    levels.check_metrics(report, files.tighter, at, _judges(report, splits), checks)
    reached = _check_network(module, example, (flat, {n: fed[n] for n in names}), report, files, checks)
    _check_recipe(recipe, report, splits.train, files, checks)
    drop = _check_metrics(folder, recipe, report, splits, module, _engine(files.sct, rows), checks)
    return {**reached, kinds.DROP: drop}


def _check_given(given: Given, report: dict[str, Any], files: _Files, checks: Checks) -> dict[str, float]:
    """The same for a run of Python objects."""

    session = _session(files.sct)
    names = [i.name for i in session.get_inputs()]
    rows = written.fixed_batch(files.onnx) if given.example.batched else None
    some = given.inputs if rows is None else given.example.few(given.inputs, rows)
    fed, flat = feeds(names, some), Flat(given.module, given.inputs, names)
    at = levels.At(given.module, files.sct, lambda m: Flat(m, given.inputs, names), fed, rows)
    levels.check_outputs(report, files.tighter, at, checks)
    reached = _check_network(given.module, given.example, (flat, fed), report, files, checks)
    claimed, label = report["compressed"].get("metric_valid"), "metric on the validation data"
    if given.evaluate is not None:
        levels.check_metrics(report, files.tighter, at, (None, given.evaluate), checks)
    if given.evaluate is None:
        checks.skip(label, "no evaluate was given", claimed)
        return reached
    with metrics.evaluating(given.module):
        found = float(given.evaluate(given.module))
        like = call(given.module, given.inputs)
    checks.equal(f"{label}, PyTorch", claimed, found, within=1e-5 * abs(found))
    if (by_engine := report["verify"].get("metric_engine")) is not None:
        engine = float(given.evaluate(Session(session, like, rows)))
        checks.equal(f"{label}, engine", by_engine, engine, within=1e-5 * abs(engine))
    drop = report["dense"]["metric_valid"] - found
    return {**reached, kinds.DROP: drop if report["compressed"]["metric"]["higher_is_better"] else -drop}


def _check_network(
    module: nn.Module,
    example: Example,
    asked: tuple[nn.Module, Mapping[str, Array]],
    report: dict[str, Any],
    files: _Files,
    checks: Checks,
) -> dict[str, float]:
    """Counts and outputs of the module; what it costs by every kind of size.

    Args:
        asked: the module as it is called with arrays by name, and these.
    """

    traced = graph.trace(module, example)
    by_weights = [kind for kind, meter in kinds.counted().items() if not meter.in_file]
    counted = sizes(module, traced, lambda: len(files.sct), by_weights)
    _check_costs(report, counted, _MODULE, checks)
    result = outputs_agree(files.sct, files.onnx, *asked)
    errors = ", ".join(f"{k} {v:.2g}" for k, v in result["errors"].items()) + f"; onnxruntime: {result['oracle']}"
    if result["apart"]:
        errors += f"; {result['apart']:.1%} of the examples lie on a step of the network"
    if result["failed"]:
        errors += f" failed ({result['failed']})"
    passed = result["agree"] and not result["failed"]
    checks.add(OUTPUTS, f"<= {result['tolerance']:.3g}", result["max_abs_error"], passed, errors)
    return counted


def _check_sets(report: dict[str, Any], files: _Files, checks: Checks) -> None:
    """Every weight of the written file is in the set that the report names, at its level, on the shapes of then."""
    if "absent" not in report:
        checks.skip(SETS, "the report is older than this check")
        return
    wrong: list[str] = []
    onnx, cuts, state = files.onnx, files.cuts, files.state
    for row in report["terms"]:
        try:
            asked = membership.from_record(row)
            wrong += membership.outside(asked, onnx, cuts, state)
        except (TypeError, ValueError, IndexError, KeyError, RuntimeError, UsageError, ConstraintError) as e:
            raise FormatError(f"report.json: terms: {row['site']}: level {row['level']!r:.40} ({told(e)})") from None
    checks.nothing_wrong(SETS, len(report["terms"]), wrong)


def _check_activations(report: dict[str, Any], files: _Files, checks: Checks) -> None:
    """Scales and ends of the grids of activations, as the packed file quantizes them: the same grids."""
    found = stored.quantized(files.unpacked)
    claimed = {row["buffer"]: row for row in report.get("activations", ())}
    if not found and not claimed:
        return
    wrong = [f"{name} is in no report" for name in found.keys() - claimed.keys()]
    for name, row in claimed.items():
        said = (float(np.float32(row["scale"])), row["low"], row["high"])
        if found.get(name) != {said}:
            wrong.append(f"{row['name']}: scale and codes {said}, found {found.get(name)}")
    checks.nothing_wrong(GRIDS, len(claimed), wrong)


def _check_recipe(recipe: Recipe, report: dict[str, Any], train: Any, files: _Files, checks: Checks) -> None:
    """The report's terms are those that the recipe asks for of its model; the levels it gives hold in the file."""
    if "absent" not in report:
        return
    n_cuts = max((row["n_cuts"] for row in report["terms"]), default=0)
    found = {row["site"]: row for row in report["terms"]}
    terms = _terms(recipe, files.cuts[:n_cuts], train)
    asked = {
        t.site.name: {k: v for k, v in membership.to_record(t, None, n_cuts).items() if k != "level"} for t in terms
    }
    found |= {t.site.name: membership.unfitted(found[t.site.name], t) for t in terms if t.site.name in found}
    wrong = [
        f"{name} is not as the recipe asks"
        for name, row in asked.items()
        if {k: found.get(name, {}).get(k) for k in row} != row
    ]
    wrong += [f"{name} is not asked for" for name in found.keys() - asked.keys()]
    given = tuple(t for t in _terms(recipe, [], train) if t.given)
    wrong += membership.outside(membership.Asked(given, {}), files.onnx, files.cuts, files.state)
    checks.nothing_wrong(TERMS, len(asked), sorted(wrong))


def _terms(recipe: Recipe, cuts: Sequence[Mapping[str, Any]], train: Any) -> list[Term]:
    """The recipe's terms on its model after some of the cuts."""
    model = plain(load_model(recipe))[0]
    for cut in cuts:
        model = graph.apply_surgery(model, cut)
    return list(recipe.build_terms(*graph.trace(model, example_of(model, train, recipe)).free))


def _judges(report: Mapping[str, Any], splits: Splits) -> list[Callable[[nn.Module], float]]:
    """The report's metric on the test split (where there is none, on validation), and on validation."""
    accuracy = report["compressed"]["metric"]["name"] == "accuracy"  # a run by name is judged by accuracy or mse
    parts = (splits.test if splits.test is not None else splits.valid, splits.valid)
    return [metrics.accuracy(part) if accuracy else metrics.mean_loss(part, mse_loss) for part in parts]


def _check_metrics(
    folder: Path,
    recipe: Recipe,
    report: dict[str, Any],
    splits: Splits,
    module: nn.Module,
    engine: nn.Module,
    checks: Checks,
) -> float:
    """The metric on the test split by the engine and on the validation split by PyTorch; the accuracy drop there."""

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
    net = dense_net(folder, load_model(recipe), recipe.dense is not None)
    if net is not None:
        dense, said = measured(net, splits.valid), dense
        compare(label, said, dense)
    else:
        checks.skip(label, f"{written.DENSE} is missing: the dense net was trained in the run and is in no file", dense)
    drop = dense - found if name == "accuracy" else found - dense
    checks.equal("drop against the dense net, validation split", claimed.get("drop_valid"), drop, within=1e-5)
    return float(drop)


def _check_budget(
    recipe: Recipe, report: dict[str, Any], reached: Mapping[str, float], files: _Files, checks: Checks
) -> None:
    """The report lists what the recipe asks for, and each entry holds for what was found."""
    asked = {x.kind: x.value for x in recipe.limits()}
    checks.equal("budget of recipe.yaml", {r["name"]: r["asked"] for r in report["budget"]}, asked)
    for row in report["budget"]:
        name, claim = f"budget {row['name']}", f"<= {row['asked']:g}"
        if row["name"] in kinds.known() and row["name"] != kinds.DROP and kinds.meter(row["name"]).on_machine:
            found, passed, said = readings.again(row, files.onnx)
            checks.add(name, claim, found, passed, said)
            continue
        if row["name"] not in reached:
            checks.skip(name, "the run was made from Python objects; Result.verify(evaluate=) checks it", claim)
            continue
        found = reached[row["name"]]
        same = abs(found - row["reached"]) <= 1e-5 * max(abs(found), 1.0)
        note = "" if same else f"the report says {row['reached']:g}"
        checks.add(name, claim, found, bool(same and row["met"] and found <= row["asked"] + 1e-12), note)


def _engine(sct: bytes, rows: int | None) -> nn.Module:

    return Session(_session(sct), rows=rows)


def _session(sct: bytes) -> Any:

    return InferenceSession(sct)
