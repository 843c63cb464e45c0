"""`verify`: a finished run damaged in one respect is refused by the check that names it, and by no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
import yaml
from onnx import numpy_helper
from tests.training.nets import mlp

import secateur
from secateur import api, cli, formats, zoo
from secateur.errors import FormatError, UsageError
from secateur.export import written
from secateur.proof import agreement, verify
from secateur.recipe import Recipe

NONZEROS, MACS = verify.counted_in_module("nnz"), verify.counted_in_module("macs")

LAYERS = verify.LAYERS
SCT_BYTES, SAME_FILE = "bytes of model.sct", "model.onnx packs to model.sct"
TEST_METRIC, VALID_METRIC = "accuracy on the test split, engine", "accuracy on the validation split, PyTorch"
DENSE = "accuracy of the dense net on the validation split"
DROP, ASKED = "drop against the dense net, validation split", "budget of recipe.yaml"
RECIPE: dict[str, Any] = {
    "model": "secateur.zoo:digits_cnn",
    "data": "digits",
    "budget": {"nbytes": "120KB", "nnz": 30000, "macs": 1500000, "accuracy_drop": "80pt"},
    "constrain": [
        {"where": "*.weight", "with": "topk", "level": {"sparsity": 0.92}},
        {"where": "fc2.weight", "with": ["topk", "codebook"], "level": {"nnz": 300, "entries": 8}},
        {"where": "conv2.weight", "with": {"name": "nm", "m": 4}, "level": {"n": 2}},
    ],
    "solver": {"name": "one_shot", "epochs": 0.5},
    "dense": {"epochs": 1, "lr": 0.003},
    "training": {"threads": 1, "lr": 0.003},
    "baselines": [],
    "bench": {"seconds": 0.01, "against": []},
}


class Run:
    """A run's folder that can be damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = {}

    def json(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change report.json."""
        path = self.folder / "report.json"
        report = json.loads(path.read_text())
        change(report)
        path.write_text(json.dumps(report))

    def recipe(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change recipe.yaml."""
        path = self.folder / "recipe.yaml"
        raw = yaml.safe_load(path.read_text())
        change(raw)
        path.write_text(yaml.safe_dump(raw))

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return safetensors.numpy.load((self.folder / "model.safetensors").read_bytes())

    def put(self, name: str, value: np.ndarray, *files: str) -> None:
        """Write a tensor into the named files; the others keep the old one. The report learns the new size."""
        if "safetensors" in files:
            (self.folder / "model.safetensors").write_bytes(safetensors.numpy.save({**self.tensors, name: value}))
        model = onnx.load(self.folder / "model.onnx")
        next(i for i in model.graph.initializer if i.name == name).CopyFrom(numpy_helper.from_array(value, name))
        raw = model.SerializeToString(deterministic=True)
        if "onnx" in files:
            (self.folder / "model.onnx").write_bytes(raw)
        if "sct" in files:
            packed = formats.pack(raw)
            (self.folder / "model.sct").write_bytes(packed)
            self.json(
                lambda r: (r["compressed"].update(nbytes=len(packed)), _entry(r, "nbytes").update(reached=len(packed)))
            )

    def failed(self) -> set[str]:
        """Names of the checks that refuse the folder."""
        found = self.found = verify.verify(self.folder)
        names = {c["name"] for c in found["checks"] if c["passed"] is False}
        assert found["passed"] == (not names)
        return names

    def check(self, name: str) -> dict[str, Any]:
        """That check, as the last `failed` found it."""
        return next(c for c in self.found["checks"] if c["name"] == name)


def _entry(report: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(r for r in report["budget"] if r["name"] == kind)


EVERYWHERE = ("safetensors", "onnx", "sct")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    api.run(Recipe.from_dict(RECIPE), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(finished, tmp_path / "run"))


def test_an_untouched_run_passes_every_check(run: Run) -> None:
    assert run.failed() == set()
    found = run.found
    assert all(c["passed"] is True for c in found["checks"]), found
    names = [c["name"] for c in found["checks"]]
    assert len(names) == len(set(names)) == 22
    assert {"budget nbytes", "budget nnz", "budget macs", "budget accuracy_drop", verify.SETS} <= set(names)


def test_every_byte_of_the_packed_file_counts(run: Run) -> None:
    whole = (run.folder / "model.sct").read_bytes()
    for at in (0, 9, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        (run.folder / "model.sct").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"model\.sct"):
            verify.verify(run.folder)


def test_a_claimed_size_that_is_not_the_files(run: Run) -> None:
    run.json(lambda r: r["compressed"].update(nbytes=r["compressed"]["nbytes"] - 1))
    assert run.failed() == {SCT_BYTES}


def test_an_onnx_weight_that_moved_by_a_thousandth(run: Run) -> None:
    w = run.tensors["fc2.bias"]
    run.put("fc2.bias", w + np.float32(1e-3) * (np.arange(len(w)) == 3), "onnx")
    assert run.failed() == {SAME_FILE, verify.OUTPUTS}


def test_a_packed_file_of_other_weights(run: Run) -> None:
    w = run.tensors["fc2.bias"]
    run.put("fc2.bias", w + np.float32(1e-3) * (np.arange(len(w)) == 3), "sct")
    assert run.failed() >= {SAME_FILE, verify.TENSORS, verify.OUTPUTS}


def test_one_last_bit_of_a_tensor(run: Run) -> None:
    """Far below the tolerance of the outputs."""
    w = run.tensors["fc1.weight"].copy()
    w.flat[np.flatnonzero(w)[0]] = np.nextafter(w.flat[np.flatnonzero(w)[0]], np.float32(9))
    run.put("fc1.weight", w, "safetensors")
    assert run.failed() == {verify.TENSORS}
    assert "fc1.weight differs" in run.check(verify.TENSORS)["note"]


def test_outputs_are_judged_and_not_by_a_thousandfold_tolerance(run: Run) -> None:
    assert run.failed() == set()
    tolerance = float(run.check(verify.OUTPUTS)["claimed"].removeprefix("<= "))
    assert 1e-7 < tolerance < 1e-3
    run.put("fc2.bias", run.tensors["fc2.bias"] + np.float32(20 * tolerance), "safetensors")
    assert verify.OUTPUTS in run.failed()
    found = run.check(verify.OUTPUTS)["found"]
    assert found == pytest.approx(20 * tolerance, rel=0.2)


def test_one_nonzero_more(run: Run) -> None:
    w = run.tensors["fc1.weight"].copy()
    w.flat[np.flatnonzero(w == 0)[7]] = w.flat[np.flatnonzero(w)[0]]
    run.put("fc1.weight", w, *EVERYWHERE)
    refused = run.failed()
    assert {LAYERS, NONZEROS} <= refused
    assert "fc1.weight: nnz" in run.check(LAYERS)["note"]
    assert not {verify.TENSORS, verify.OUTPUTS, SAME_FILE, SCT_BYTES, "budget nbytes"} & refused


@pytest.mark.parametrize(
    ("key", "check", "budget"),
    [("nnz", NONZEROS, "budget nnz"), ("macs", MACS, "budget macs")],
)
def test_counts_are_taken_anew_and_not_from_the_report(key: str, check: str, budget: str, run: Run) -> None:
    run.json(lambda r: r["compressed"].update({key: r["compressed"][key] - 1}))
    assert run.failed() == {check}
    run.json(lambda r: (r["compressed"].update({key: 5}), _entry(r, key).update(asked=5.0, reached=5.0)))
    run.recipe(lambda r: r["budget"].update({key: 5}))
    assert run.failed() == {check, budget}
    assert run.check(budget)["found"] > 5


def test_a_count_that_the_report_leaves_out(run: Run) -> None:
    run.json(lambda r: r["compressed"].pop("nnz"))
    assert run.failed() == {NONZEROS}


def test_a_metric_that_was_not_reached(run: Run) -> None:
    run.json(lambda r: r["compressed"]["metric"].update(value=r["compressed"]["metric"]["value"] + 1 / 400))
    assert run.failed() == {TEST_METRIC}


@pytest.mark.parametrize("key", ["loss", "calibration_error"])
def test_a_loss_or_a_calibration_that_was_not_reached(key: str, run: Run) -> None:
    run.json(lambda r: r["compressed"]["metric"].update({key: r["compressed"]["metric"][key] * 0.9}))
    assert run.failed() == {"loss and calibration error on the test split, PyTorch"}


def test_the_accuracy_drop_is_measured_anew(run: Run) -> None:
    def better(r: dict[str, Any]) -> None:
        r["compressed"].update(metric_valid=r["dense"]["metric_valid"], drop_valid=0.0)
        _entry(r, "accuracy_drop").update(asked=0.0, reached=0.0)

    run.json(better)
    run.recipe(lambda r: r["budget"].update(accuracy_drop="0pt"))
    assert run.failed() == {VALID_METRIC, DROP, "budget accuracy_drop"}


def test_a_dense_net_made_to_look_worse(run: Run) -> None:
    run.json(lambda r: r["dense"].update(metric_valid=r["dense"]["metric_valid"] - 0.05))
    assert run.failed() == {DENSE}


def test_another_dense_net_than_the_one_that_was_trained(run: Run) -> None:
    file = run.folder / "dense.safetensors"
    state = safetensors.numpy.load(file.read_bytes())
    file.write_bytes(safetensors.numpy.save({k: np.zeros_like(v) for k, v in state.items()}))
    assert {DENSE, DROP} <= run.failed()
    file.unlink()
    assert run.failed() == set()
    assert run.check(DENSE)["passed"] is None
    assert "the dense net was trained in the run and is in no file" in run.check(DENSE)["note"]


def test_a_dense_net_that_an_earlier_run_left_is_not_looked_at(tmp_path: Path) -> None:
    """The same folder, then weights from a file: the dense net is the file's, whatever lies beside it."""
    keep = tmp_path / "given.safetensors"
    keep.write_bytes(written.tensors_of(zoo.digits_cnn()))
    recipe = {
        "model": "secateur.zoo:digits_cnn",
        "weights": str(keep),
        "data": "digits",
        "constrain": [{"with": "topk", "level": {"sparsity": 0.5}}],
        "solver": {"name": "one_shot", "epochs": 0},
        "bench": {"against": [], "seconds": 0.01},
    }
    api.run(Recipe.from_dict(recipe), tmp_path / "run")
    torch.manual_seed(5)
    (tmp_path / "run" / written.DENSE).write_bytes(written.tensors_of(zoo.digits_cnn()))
    assert verify.verify(tmp_path / "run")["passed"]


KINDS = {"nbytes": 9000.0, "nnz": 1000.0, "macs": 9000.0, "accuracy_drop": -1.0}


def test_budget_entries_that_do_not_hold(run: Run) -> None:
    run.json(lambda r: [_entry(r, kind).update(asked=tight) for kind, tight in KINDS.items()])
    assert run.failed() == {ASKED, *(f"budget {kind}" for kind in KINDS)}


def test_budget_entries_that_claim_another_value(run: Run) -> None:
    run.json(lambda r: [_entry(r, k).update(reached=_entry(r, k)["reached"] * 0.99 - 0.01) for k in KINDS])
    assert run.failed() == {f"budget {kind}" for kind in KINDS}
    assert all("the report says" in run.check(f"budget {kind}")["note"] for kind in KINDS)


def test_a_budget_entry_that_admits_to_be_missed_or_is_left_out(run: Run) -> None:
    run.json(lambda r: _entry(r, "nnz").update(met=False))
    assert run.failed() == {"budget nnz"}
    run.json(lambda r: r["budget"].remove(_entry(r, "nnz")))
    assert run.failed() == {ASKED}


def test_a_layer_that_left_its_codebook(run: Run) -> None:
    w = run.tensors["fc2.weight"].copy()
    w.flat[np.flatnonzero(w)[0]] *= np.float32(1.001)
    run.put("fc2.weight", w, *EVERYWHERE)
    row = next(r for r in json.loads((run.folder / "report.json").read_text())["layers"] if r["name"] == "fc2.weight")
    assert row["n_values"] == 8
    assert {LAYERS, verify.SETS} <= run.failed()
    run.json(lambda r: next(x for x in r["layers"] if x["name"] == "fc2.weight").update(n_values=9))
    refused = run.failed()
    assert verify.SETS in refused
    assert LAYERS not in refused
    assert "fc2.weight: codebook at level 8" in run.check(verify.SETS)["note"]


def test_a_layer_that_left_its_groups_with_as_many_nonzeros_as_before(run: Run) -> None:
    w = run.tensors["conv2.weight"].copy()
    # N:M groups lie along input channels: one value moves to a place of a full group.
    columns = np.moveaxis(w, 1, -1).reshape(-1, 4)
    full = np.flatnonzero((columns != 0).sum(1) == 2)
    hole = np.flatnonzero(columns[full[0]] == 0)[0]
    columns[full[0], hole] = columns[full[1]][columns[full[1]] != 0][0]
    columns[full[1], np.flatnonzero(columns[full[1]])[0]] = 0
    moved = np.moveaxis(columns.reshape(w.shape[0], w.shape[2], w.shape[3], w.shape[1]), -1, 1)
    assert np.count_nonzero(moved) == np.count_nonzero(w)
    run.put("conv2.weight", np.ascontiguousarray(moved), *EVERYWHERE)
    refused = run.failed()
    assert verify.SETS in refused
    assert not {LAYERS, NONZEROS, verify.TENSORS, verify.OUTPUTS} & refused


def _term(report: dict[str, Any], site: str) -> dict[str, Any]:
    return next(t for t in report["terms"] if t["site"] == site)


def test_the_sets_are_those_of_the_recipe_whatever_the_report_says(run: Run) -> None:
    run.json(lambda r: _term(r, "fc2.weight").update(site="fc9.weight"))
    assert run.failed() == {verify.TERMS}
    assert "fc2.weight is not as the recipe asks" in run.check(verify.TERMS)["note"]
    run.json(lambda r: _term(r, "fc9.weight").update(site="fc2.weight", level=[4096, 256]))
    assert run.failed() == set()
    run.recipe(lambda r: r["constrain"][1].update(level={"nnz": 300, "entries": 4}))
    assert run.failed() == {verify.TERMS}
    assert "fc2.weight: codebook at level 4" in run.check(verify.TERMS)["note"]


def test_a_term_that_fits_no_weight_is_named(run: Run) -> None:
    run.json(lambda r: _term(r, "fc2.weight").update(level=[1, 2, 3]))
    with pytest.raises(FormatError, match=r"terms: fc2\.weight: level \[1, 2, 3\]"):
        verify.verify(run.folder)
    run.json(lambda r: _term(r, "fc2.weight").update(level=[300, 8], place={"op": "linear"}))
    with pytest.raises(FormatError, match=r"terms: fc2\.weight"):
        verify.verify(run.folder)


def test_a_run_of_objects_is_checked_as_far_as_its_files_go(run: Run) -> None:
    run.recipe(lambda r: (r.pop("model"), r.pop("data")))
    found = verify.verify(run.folder)
    assert found["passed"]
    assert {c["name"]: c["passed"] for c in found["checks"]}[verify.OUTPUTS] is None
    run.json(lambda r: r["layers"][0].update(nnz=r["layers"][0]["nnz"] - 1))
    assert run.failed() == {LAYERS}


def test_the_command_exits_1_and_names_what_failed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["verify", str(run.folder)]) == 0
    run.json(lambda r: r["compressed"].update(macs=r["compressed"]["macs"] - 1))
    capsys.readouterr()
    assert cli._main(["verify", str(run.folder)]) == 1
    assert f"1 of 22 checks failed: {MACS}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 1, "cuts": ' + "[" * 100_000, "{", "[]", '{"schema": 2}'])
def test_a_damaged_record_of_the_surgery_is_named(text: str, run: Run) -> None:
    (run.folder / "surgery.json").write_text(text)
    with pytest.raises(FormatError, match=r"surgery\.json: (damaged|not a surgery record of schema 1)"):
        secateur.load(run.folder)


@pytest.mark.parametrize("cut", [3, [], {"version": 1, "edits": [[]], "biases": {}, "pads": []}])
def test_a_cut_that_fits_no_model_is_refused(cut: Any, run: Run) -> None:
    (run.folder / "surgery.json").write_text(
        json.dumps({"schema": 1, "model": "secateur.zoo:digits_cnn", "cuts": [cut]})
    )
    with pytest.raises(FormatError, match="surgery: "):
        secateur.load(run.folder)


@pytest.mark.parametrize("name", verify.FILES)
def test_a_missing_file_is_named(name: str, run: Run) -> None:
    (run.folder / name).unlink()
    with pytest.raises(UsageError, match=rf"{name} missing"):
        verify.verify(run.folder)


def test_runtimes_that_give_other_shapes_or_nan_do_not_agree() -> None:
    one = [np.zeros((2, 3), np.float32)]
    assert agreement._gap(one, one) == 0
    assert agreement._gap(one, [np.zeros((3, 2), np.float32)]) == float("inf")
    assert agreement._gap(one, []) == float("inf")
    assert agreement._gap(one, [np.full((2, 3), np.nan, np.float32)]) == float("inf")


def test_the_tolerance_is_a_few_roundings_of_the_net() -> None:
    import torch

    from secateur import graph
    from secateur.export import written

    net = mlp()
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    files = written.write(net, graph.trace(net, x), graph.settle(net, x))
    feeds = {files_input(files.sct): x.numpy()}
    found = agreement.outputs_agree(files.sct, files.onnx, files.module, feeds)
    largest = float(net(x).detach().abs().max())
    assert found["agree"]
    assert 32 * 2**-23 * largest <= found["tolerance"] <= (32 + 8 * 4) * 2**-23 * largest
    other = mlp(1)
    assert not agreement.outputs_agree(files.sct, files.onnx, other, feeds)["agree"]


def files_input(sct: bytes) -> str:
    from secateur.engine import InferenceSession

    return InferenceSession(sct).get_inputs()[0].name


NESTED = """
from collections import namedtuple
import torch
from torch import nn
from secateur.data.spec import Splits

Pair = namedtuple("Pair", "x z")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, pair, more):
        return self.c(torch.relu(self.a(pair.x) + self.b(pair.z))) + more["shift"][0]


def batches(seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(2):
        x = torch.randn(16, 6, generator=g)
        yield (Pair(x, x[:, :2].clone()), {"shift": (x[:, :1].clone(),)}), torch.randint(0, 3, (16,), generator=g)


def data():
    return Splits(*(list(batches(seed)) for seed in range(3)))
"""


def test_named_tuples_and_dicts_in_tuples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are put together again as the network takes them."""
    (tmp_path / "nested_inputs.py").write_text(NESTED)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {
        "model": "nested_inputs:Net",
        "data": "nested_inputs:data",
        "budget": {"nnz": 40},
        "constrain": [{"where": "*.weight", "with": "topk"}],
        "solver": {"name": "one_shot", "epochs": 1},
        "dense": {"epochs": 1},
        "training": {"threads": 1},
        "baselines": [],
        "bench": {"seconds": 0.01, "against": []},
    }
    api.run(Recipe.from_dict(recipe), tmp_path / "run")
    found = verify.verify(tmp_path / "run", trust=True)
    assert [c for c in found["checks"] if c["passed"] is False] == []
    assert found["passed"]
