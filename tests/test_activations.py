"""8-bit activations: calibrated and trained, written as QDQ, run in the engine's int8 kernels, rebuilt, verified."""

import copy
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import secateur
from secateur.data.tensors import TensorData
from secateur.engine import InferenceSession, isas
from secateur.engine.inspect import inspect
from secateur.errors import FormatError, SecateurError, UnsupportedError, UsageError
from secateur.graph import apply_surgery
from secateur.recipe import Recipe


class Digits(nn.Module):
    """Batch norms, a residual sum, a max pool, a concatenation, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(8 * 16 + 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn0(self.stem(x)))
        x = torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        x = nn.functional.max_pool2d(x, 2)
        y: Tensor = self.head(self.drop(torch.cat([x.flatten(1), x.mean(dim=(2, 3))], dim=1)))
        return y


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))


def data() -> tuple[TensorData, TensorData]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    return TensorData(x[:1400], y[:1400], 64), TensorData(x[1400:], y[1400:], 256)


def trained(make: Any) -> nn.Module:
    """Three epochs of Adam, trained once: a copy, and torch's generator as it was at the end."""
    net, state = once(make)
    torch.set_rng_state(state)
    return copy.deepcopy(net)


@cache
def once(make: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net, (train, _) = make(), data()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(3):
        for i in range(len(train)):
            x, y = train.batch(i)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval(), torch.get_rng_state()


def compressed(net: nn.Module, **recipe: Any) -> Any:
    train, valid = data()
    common = {"solver": {"name": "one_shot", "epochs": 0}, "bench": {"seconds": 0.001, "against": []}, "baselines": []}
    return secateur.compress(net, train, valid=valid, recipe={**common, **recipe}, on_progress=False)


BOTH = {"weights": 8, "activations": 8}


@pytest.fixture(scope="module")
def calibrated() -> Any:
    return compressed(trained(Digits), quantize=BOTH)


def test_calibration_alone_keeps_the_accuracy(calibrated: Any) -> None:
    report = calibrated.report
    assert report["compressed"]["metric"]["value"] >= report["dense"]["metric"]["value"] - 0.01
    assert report["verify"]["agree"], report["verify"]


def test_the_engine_runs_integer_kernels_end_to_end(calibrated: Any) -> None:
    rows = {row["op"]: row["kernel"] for row in inspect(calibrated.files.sct)["layers"] if row["kernel"]}
    assert "s8_u8_s32" in rows["Conv"]
    assert "s8_u8_s32" in rows["Gemm"]
    weighted = [r for r in inspect(calibrated.files.sct)["layers"] if r["op"] in ("Conv", "Gemm")]
    assert len(weighted) == 4
    assert all("s8_u8_s32" in r["kernel"] for r in weighted)
    assert rows["MaxPool"] == "max_pool_quads_u8"


def test_every_isa_gives_the_same_bits(calibrated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data()[1].batch(0)[0].numpy()
    answers = []
    for isa in isas():
        monkeypatch.setenv("SECATEUR_ISA", isa)
        answers.append(InferenceSession(calibrated.files.sct).run(None, {"x": x})[0])
    assert all(np.array_equal(answers[0], other) for other in answers[1:])
    with torch.no_grad():
        torch_says = calibrated.model(torch.from_numpy(x)).numpy()
    # Torch multiplies by the inverse of a scale where the others divide: a pixel of 8/16 lies between two codes.
    same = np.isclose(answers[0], torch_says, atol=1e-4, rtol=0).all(axis=1)
    assert same.mean() >= 0.8
    assert np.linalg.norm(answers[0] - torch_says) <= 0.005 * np.linalg.norm(torch_says)
    assert (answers[0].argmax(1) == torch_says.argmax(1)).mean() >= 0.995


def test_codes_of_seven_bits_fit_sixteen_bits_two_by_two() -> None:
    """255 * 2 * 63 fits 16 bits: every block of such codes is multiplied as bytes."""
    made = compressed(trained(mlp), quantize={"weights": 7, "activations": 8})
    assert made.report["verify"]["agree"], made.report["verify"]
    codes = [numpy_helper.to_array(t) for t in onnx.load_from_string(made.files.onnx).graph.initializer]
    codes = [c for c in codes if c.dtype == np.int8 and c.ndim == 2]
    assert len(codes) == 3
    assert all(np.abs(c.astype(int)).max() == 63 for c in codes)


def test_the_model_is_a_graph_of_torchs_own_calls(calibrated: Any) -> None:
    model = calibrated.model
    assert isinstance(model, torch.fx.GraphModule)
    made = [n for n in model.graph.nodes if n.target is torch.fake_quantize_per_tensor_affine]
    assert len(made) >= 8
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    rows = {row["name"]: row for row in calibrated.report["activations"]}
    assert rows["x"]["low"] == -128
    assert rows["relu"]["low"] == 0
    assert rows["conv2"]["low"] == -128
    for row in rows.values():
        assert float(model.get_buffer(row["buffer"])) == row["scale"] > 0
    # What moves bytes shares a scale with what it moves: the sum's ReLU, the pool, the flatten.
    shared = {str(n.args[1].target) for n in made if n.args[0].name in ("relu_2", "max_pool2d", "flatten")}
    assert len(shared) == 1
    assert any("activations lie on" in note for note in calibrated.report["notes"])


def test_a_saved_run_is_rebuilt_and_verified(calibrated: Any, tmp_path: Path) -> None:
    calibrated.save(tmp_path)
    again = secateur.load(tmp_path, Digits())
    x = data()[1].batch(0)[0]
    with torch.no_grad():
        assert torch.equal(again(x), calibrated.model(x))
    assert calibrated.verify()["passed"]


def test_a_changed_scale_is_found(calibrated: Any, tmp_path: Path) -> None:
    import json

    calibrated.save(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    report["activations"][0]["scale"] *= 2
    (tmp_path / "report.json").write_text(json.dumps(report))
    from secateur.proof.verify import GRIDS, verify

    rows = {row["name"]: row["passed"] for row in verify(tmp_path)["checks"]}
    assert rows[GRIDS] is False


def test_straight_through_training_with_zeros() -> None:
    """Top-k and int8 weights on one site, activations beside them, trained."""
    sets = [{"name": "topk"}, {"name": "uniform", "per": "row", "zero": "level", "min_bits": 8}]
    net = trained(mlp)
    found = compressed(
        net,
        constrain=[{"where": "*", "with": sets}],
        quantize={"weights": None, "activations": 8, "observer": "percentile", "calibration": {"batches": 3}},
        budget={"nnz": 1500},
        solver={"name": "one_shot", "epochs": 3},
    )
    report = found.report
    assert report["compressed"]["nnz"] <= 1500
    assert report["verify"]["agree"], report["verify"]
    assert report["compressed"]["metric"]["value"] >= report["dense"]["metric"]["value"] - 0.01
    kernels = [r["kernel"] for r in inspect(found.files.sct)["layers"] if r["op"] == "Gemm"]
    assert len(kernels) == 3
    assert all("s8_u8_s32" in k for k in kernels)


def test_a_layer_kept_float_stays_so() -> None:
    found = compressed(trained(mlp), quantize={**BOTH, "keep_float": ["5"]})
    kernels = [r["kernel"] for r in inspect(found.files.sct)["layers"] if r["op"] == "Gemm"]
    assert ["s8_u8_s32" in k for k in kernels] == [True, True, False]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.flatten(1))
        return y if x.shape[0] > 0 else -y


MISTAKES: list[tuple[Any, dict[str, Any], str]] = [
    (mlp, {"quantize": BOTH, "constrain": [{"where": "1", "with": "topk"}]}, "constrain[0] acts on 1.weight already"),
    (mlp, {"quantize": {"weights": None}, "constrain": {"with": "topk"}}, "on no int8 grid"),
    (mlp, {"quantize": {**BOTH, "keep_float": ["nothing"]}}, "'nothing' matches no layer"),
    (Branches, {"quantize": BOTH}, "no fixed graph of calls"),
]


@pytest.mark.parametrize(("make", "recipe", "said"), MISTAKES)
def test_mistakes_are_named_before_any_work(make: Any, recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(SecateurError, match=None) as e:
        compressed(make().eval(), **recipe)
    assert said in str(e.value)


def test_a_recipe_says_what_it_takes() -> None:
    for raw, said in (
        ({"quantize": {"observer": "guess"}}, "minmax"),
        ({"quantize": {"activation": 8}}, "activations"),
        ({"quantize": {"calibration": {"batches": 0}}}, "batches"),
    ):
        with pytest.raises(UsageError, match=said):
            Recipe.from_dict(raw)


def test_constant_calibration_data_is_refused() -> None:
    net = trained(mlp)
    dull = TensorData(torch.zeros(128, 1, 8, 8), torch.zeros(128, dtype=torch.int64), 64)
    with pytest.raises(UsageError, match="every value of input 'input' is the same"):
        secateur.compress(
            net,
            dull,
            recipe={"quantize": BOTH, "solver": {"name": "one_shot", "epochs": 0}, "baselines": []},
            on_progress=False,
        )


def own_loop(net: nn.Module, calibration: Any, steps: int = 12) -> Any:
    train, valid = data()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x, y = valid.batch(0)
    made = secateur.Compressor(
        net,
        {"quantize": BOTH, "solver": {"name": "gradual", "polish": 0.0, "snap": 1.0}},
        x[:2],
        optimizer=optimizer,
        total_steps=steps,
        evaluate=lambda m: float((m(x).argmax(1) == y).float().mean()),
        calibration=calibration,
    )
    net.train()
    for i in range(steps):
        inputs, targets = train.batch(i)
        loss = nn.functional.cross_entropy(net(inputs), targets) + made.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.step()
    return made


def test_a_users_own_loop_trains_on_grids() -> None:
    net = trained(Digits)
    x = data()[1].batch(0)[0]
    made = own_loop(net, [data()[0].batch(i)[0] for i in range(4)])
    left = {k: v.clone() for k, v in net.state_dict().items()}
    on_grids = net.eval()(x).detach()
    found = made.finalize()
    assert all(torch.equal(v, left[k]) for k, v in net.state_dict().items())
    assert "forward" not in net.__dict__
    floats = net(x).detach()  # its own forward pass, the norms folded: the same net without grids
    assert 0 < float((floats - on_grids).abs().max()) < 0.5 * float(floats.abs().max())
    report = found.report
    assert report["verify"]["agree"], report["verify"]
    assert [r["name"] for r in report["activations"]] == ["x", "relu", "relu_1", "conv2", "relu_2"]
    kernels = [r["kernel"] for r in inspect(found.files.sct)["layers"] if r["op"] in ("Conv", "Gemm")]
    assert all("s8_u8_s32" in k for k in kernels)
    assert report["compressed"]["metric"]["value"] >= report["dense"]["metric"]["value"] - 0.02
    assert found.verify()["passed"]


def test_a_users_own_loop_gives_the_net_of_ours() -> None:
    """The same batches in the same order, the same optimizer, a constant rate; the last point is the best in both."""
    batches = [data()[0].batch(i) for i in range(12)]
    recipe = {
        "quantize": {**BOTH, "calibration": {"batches": 5}},
        "solver": {"name": "one_shot", "epochs": 3},
        "training": {"lr": 1e-3, "schedule": "constant", "warmup_steps": 0},
    }
    calls = count()
    extras = {"baselines": [], "bench": {"seconds": 0.001, "against": []}}
    ours = secateur.compress(
        trained(mlp), batches, evaluate=lambda m: float(next(calls)), recipe={**recipe, **extras}, on_progress=False
    )
    net = trained(mlp)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.9, 0.99), fused=True)
    inputs = [x for x, _ in batches]
    made = secateur.Compressor(net, recipe, inputs[0], optimizer=optimizer, total_steps=36, calibration=inputs)
    for _ in range(3):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            made.step()
    theirs = made.finalize()
    assert [r["scale"] for r in theirs.report["activations"]] == [r["scale"] for r in ours.report["activations"]]
    want, got = ours.model.state_dict(), theirs.model.state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[k], got[k]) for k in want)
    assert len({r["scale"] for r in ours.report["activations"]}) == 3  # trained: not what calibration found
    assert theirs.files.onnx == ours.files.onnx


def test_a_users_own_loop_on_grids_resumes_to_the_bit() -> None:
    calibration = [data()[0].batch(i)[0] for i in range(3)]

    def begun() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        net = trained(Digits)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        recipe = {"quantize": BOTH, "solver": {"name": "gradual", "polish": 0.25, "snap": 0.5}}
        made = secateur.Compressor(
            net, recipe, calibration[0][:2], optimizer=optimizer, total_steps=16, calibration=calibration
        )
        return net, optimizer, made

    def go_on(net: nn.Module, optimizer: torch.optim.Optimizer, made: Any, steps: range) -> None:
        for i in steps:
            x, y = data()[0].batch(i)
            torch.manual_seed(i)
            net.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            made.step()

    straight = begun()
    go_on(*straight, range(16))
    want = straight[2].finalize().files.onnx
    for stop in (3, 11):  # before the grids are there, and when they are
        first = begun()
        go_on(*first, range(stop))
        saved = [part.state_dict() for part in first]
        saved = copy.deepcopy(saved)
        again = begun()
        for part, state in zip(again, saved, strict=True):
            part.load_state_dict(state)
        go_on(*again, range(stop, 16))
        assert again[2].finalize().files.onnx == want


def test_a_norm_that_leaves_no_bias_to_train_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(4 * 36, 10))
    with pytest.raises(UnsupportedError, match=r"1: it is folded into 0, and neither has a bias"):
        own_loop(net, [data()[0].batch(0)[0]])


def test_a_users_own_loop_needs_data_for_ranges() -> None:
    with pytest.raises(UsageError, match=r"needs ranges, .* give calibration="):
        own_loop(mlp(), None)
    with pytest.raises(UsageError, match="only once"):
        own_loop(mlp(), iter([torch.zeros(2, 1, 8, 8)]))
    with pytest.raises(UsageError, match="every value of input"):
        own_loop(mlp(), [torch.zeros(2, 1, 8, 8)], 1).finalize()


DAMAGED: list[dict[str, Any]] = [
    {"norms": [["head", "bn0"]], "grids": [{"scale": "x; import os", "unsigned": True, "calls": ["x"]}]},
    {"norms": [], "grids": [{"scale": "x_scale", "unsigned": True, "calls": ["y"]}]},
    {"norms": [["bn0", "stem"]], "grids": []},
    {"norms": [], "grids": [{"scale": 3, "unsigned": True, "calls": ["x"]}]},
]


@pytest.mark.parametrize("record", DAMAGED, ids=str)
def test_a_damaged_record_is_no_program(record: dict[str, Any]) -> None:
    """Names of a record become names in the code of a graph: nothing but known calls and identifiers gets there."""
    with pytest.raises(FormatError, match="surgery"):
        apply_surgery(Digits().eval(), {"version": 1, "edits": [], "biases": {}, "pads": [], **record})
