"""What a network is traced and written on: guessed from the data, given in the call, in the recipe, or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

import secateur
from secateur.errors import SecateurError, UnsupportedError, UsageError
from secateur.export import written
from secateur.recipe import Recipe
from secateur.shell import named_inputs
from secateur.zoo.ordinary import GCN, Spike

FAST: dict[str, Any] = {
    "solver": {"name": "gradual", "epochs": 1},
    "baselines": [],
    "training": {"threads": 1},
    "bench": {"seconds": 0.01, "against": []},
    "constrain": [{"with": "topk"}],
}


def rows(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Bytes(nn.Module):
    """Pictures as they are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x / 255)).mean((2, 3)))


class Spikes(nn.Module):
    """Integrate and fire over three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0.0
        total: Any = 0.0
        for _ in range(3):
            v = 0.5 * v + self.a(x)
            s = Spike.apply(v - 0.5)
            v, total = v * (1 - s), total + self.b(s)
        return total / 3


class RowByRow(nn.Module):
    """Any batch in eager mode; a trace sees a list of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.b(F.relu(self.a(row))) for row in x])


def batches(x: Any, n: int, seed: int = 5) -> DataLoader[Any]:
    labels = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, labels), batch_size=16)


def compress(net: nn.Module, data: Any, **more: Any) -> secateur.Result:
    torch.manual_seed(0)
    return secateur.compress(net, data, valid=data, recipe=FAST | more.pop("recipe", {}), on_progress=False, **more)


def shape_in(result: secateur.Result) -> list[Any]:
    first = onnx.load_model_from_string(result.files.onnx).graph.input[0]
    return [d.dim_param or d.dim_value for d in first.type.tensor_type.shape.dim]


def test_a_graph_is_taken_whole_and_the_report_says_so() -> None:
    x, adjacency = rows(30, 8), torch.eye(30) + 0.05 * rows(30, 30).abs()
    data = [((x, adjacency), torch.randint(0, 3, (30,)))] * 3
    result = compress(GCN(8, 16, 3), data, budget={"nbytes": 900})
    assert shape_in(result) == [30, 8]
    assert any("[30, 8], [30, 30] are taken whole as one example" in n for n in result.report["notes"])
    assert result.report["verify"]["agree"]
    assert result.report["verify"]["metric_engine"] == pytest.approx(result.report["verify"]["metric_torch"])
    assert result.report["dense"]["macs"] == 30 * (8 * 16 + 16 * 3)  # of all nodes


def test_bytes_from_a_data_loader_that_the_network_divides_by_255() -> None:
    x = torch.randint(0, 256, (48, 1, 6, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    result = compress(Bytes(), batches(x, 48), budget={"nnz": 60})
    assert shape_in(result) == ["batch", 1, 6, 6]
    session = secateur.InferenceSession(result.files.sct)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    with torch.no_grad():
        wanted = result.model(x).numpy()
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], wanted, atol=1e-5)
    assert result.report["verify"]["agree"]


def test_spikes_train_through_their_surrogate_and_run_in_the_engine() -> None:
    result = compress(Spikes(), batches(rows(64, 8), 64), budget={"nnz": 80})
    assert result.report["verify"]["agree"]
    assert result.report["verify"]["metric_engine"] == pytest.approx(result.report["verify"]["metric_torch"])
    ops = {n.op_type for n in onnx.load_model_from_string(result.files.onnx).graph.node}
    assert "Greater" in ops


class Membrane(Spikes):
    """The state is an attribute, which training leaves behind with its history."""

    def forward(self, x: Tensor) -> Tensor:
        self.v: Any = torch.zeros(1)
        total: Any = 0.0
        for _ in range(3):
            self.v = 0.5 * self.v + self.a(x)
            s = Spike.apply(self.v - 0.5)
            self.v, total = self.v * (1 - s), total + self.b(s)
        return total / 3


def test_a_state_kept_as_an_attribute_does_not_hinder_copies() -> None:
    result = compress(Membrane(), batches(rows(64, 8), 64), budget={"nnz": 80})
    assert result.report["verify"]["agree"]


class Tempered(nn.Module):
    """A number beside the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, temperature: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) / temperature


def test_a_number_beside_the_examples_stays_a_number() -> None:
    data = [((rows(16, 8, seed=i), torch.tensor(0.5)), torch.randint(0, 3, (16,))) for i in range(3)]
    result = compress(Tempered(), data, budget={"nnz": 60})
    assert shape_in(result) == ["batch", 8]
    assert result.report["verify"]["agree"]


def test_a_batch_axis_that_the_exporter_cannot_free_is_fixed_to_one_and_judged_example_by_example() -> None:
    data = batches(rows(48, 8), 48)
    result = compress(RowByRow(), data, budget={"nnz": 60})
    assert shape_in(result) == [1, 8]
    assert any("takes a batch of 1" in n for n in result.report["notes"])
    assert result.report["verify"]["metric_engine"] == pytest.approx(result.report["verify"]["metric_torch"])
    with pytest.raises(UnsupportedError, match="RowByRow cannot be exported"):
        compress(RowByRow(), data, budget={"nnz": 60}, dynamic_batch=True)


def test_a_fixed_batch_is_the_example_one_when_it_is_asked_for() -> None:
    data = batches(rows(48, 8), 48)
    result = compress(Spikes(), data, budget={"nnz": 80}, recipe={"dynamic_batch": False})
    assert shape_in(result) == [1, 8]
    assert not any("takes a batch" in n for n in result.report["notes"])
    assert shape_in(compress(Spikes(), data, budget={"nnz": 80}, recipe={"dynamic_batch": False}, dynamic_batch=True))[
        0
    ] == ("batch")


def test_example_inputs_of_the_call_come_before_those_of_the_recipe(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(2, 7).numpy())  # seven features: the model needs eight
    data, recipe = batches(rows(48, 8), 48), {"example_inputs": str(tmp_path / "x.npy")}
    with pytest.raises(UsageError, match=r"does not run on example_inputs \[2, 7\]"):
        compress(Spikes(), data, budget={"nnz": 80}, recipe=recipe)
    assert shape_in(compress(Spikes(), data, budget={"nnz": 80}, recipe=recipe, example_inputs=rows(2, 8)))[1] == 8


def test_the_loop_of_the_user_takes_a_graph() -> None:
    torch.manual_seed(0)
    net, inputs = GCN(8, 16, 3), (rows(12, 8), torch.eye(12) + 0.1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    recipe = FAST | {"budget": {"nnz": 90}}
    compressor = secateur.Compressor(net, recipe, inputs, optimizer=optimizer, total_steps=6)
    for _ in range(6):
        optimizer.zero_grad()
        (net(*inputs).square().mean() + compressor.penalty()).backward()
        optimizer.step()
        compressor.step()
    result = compressor.finalize()
    assert shape_in(result) == [12, 8]
    assert any("taken whole" in n for n in result.report["notes"])


@pytest.mark.parametrize("name", ["x.npy", "named.npz", "placed.npz"])
def test_inputs_by_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    x, y = rows(2, 3).numpy(), np.arange(4)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "named.npz", image=x, tokens=y)
    np.savez(tmp_path / "placed.npz", x, y)
    found = named_inputs.read(str(tmp_path / name))
    if name == "x.npy":
        assert torch.equal(found, torch.from_numpy(x))
    else:
        parts = found if name == "placed.npz" else (found["image"], found["tokens"])
        assert isinstance(found, tuple if name == "placed.npz" else dict)
        assert torch.equal(parts[0], torch.from_numpy(x))
        assert parts[1].dtype == torch.int64


def test_inputs_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_inputs.py").write_text("import torch\ndef example():\n    return torch.zeros(1, 5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert named_inputs.read("mine_for_inputs:example").shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npy", None, "no such file"),
        ("text.npy", b"hello", "not arrays of numbers"),
        ("objects.npy", np.array([{}], dtype=object), "not arrays of numbers"),
        ("cut.npz", b"PK\x03\x04 and no more", "not arrays of numbers"),  # left open, it would warn
        ("changed.npz", None, "not arrays of numbers"),
        ("a_path", None, "give package.module:attribute"),
    ],
)
def test_inputs_that_cannot_be_read(tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = tmp_path / name if "." in name else Path(name)
    if name == "changed.npz":
        np.savez(path, x=np.arange(50))
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        content = bytes(whole)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(SecateurError, match=said):
        named_inputs.read(str(path))


def test_the_command_line_says_it_with_set() -> None:
    recipe = Recipe.from_text("budget: {nnz: 5}", ["dynamic_batch=false", "example_inputs=nets:example"])
    assert recipe.dynamic_batch is False
    assert recipe.example_inputs == "nets:example"
    with pytest.raises(UsageError, match="dynamic_batch"):
        Recipe.from_text("dynamic_batch: maybe")


def test_the_size_that_a_file_takes() -> None:
    example = secateur.graph.settle(RowByRow().eval(), rows(3, 8))
    assert written.fixed_batch(written.exported_bytes(RowByRow().eval(), example)) == 1
    example = secateur.graph.settle(Spikes().eval(), rows(3, 8))
    assert written.fixed_batch(written.exported_bytes(Spikes().eval(), example)) is None
