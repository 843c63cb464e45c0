from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from graph.nets import LeNet, Tied, TwoInputs, Vgg, all_nets, shake
from secateur import formats
from secateur.constraints.all_of import AllOf
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.engine import InferenceSession
from secateur.errors import CheckError, UnsupportedError, UsageError
from secateur.export import _canonical as canonical
from secateur.export import onnx as target
from secateur.export.onnx import to_bytes
from secateur.shell import runtimes


def graph(data: bytes) -> Any:
    return onnx.load_model_from_string(data).graph


def ops(data: bytes) -> list[str]:
    return [n.op_type for n in graph(data).node]


def run(data: bytes, *inputs: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    ort = runtimes.onnxruntime()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)})


@pytest.mark.parametrize("name", list(all_nets()))
def test_every_net_exports_runs_and_keeps_names(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    net, example = all_nets()[name]
    before = copy.deepcopy(net.state_dict())
    net.train()
    data = to_bytes(net, example)  # the check inside compares with ONNX Runtime on batches of 1 and 3
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    g = graph(data)
    known = dict(net.named_parameters()) | dict(net.named_buffers())
    big = {t.name: numpy_helper.to_array(t) for t in g.initializer if t.name in known}
    assert {n for n, p in net.named_parameters() if n != "unused"} == {n for n in big if "running" not in n}
    assert all(np.array_equal(v, known[n].detach().numpy()) for n, v in big.items())
    assert "Identity" not in ops(data)
    assert "Shape" not in ops(data)
    assert not g.value_info
    assert not g.doc_string
    assert all(not n.name and not n.metadata_props for n in g.node)
    assert all(len(o) <= 3 or o in {x.name for x in g.output} for n in g.node for o in n.output)
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    assert ops(data).count("BatchNormalization") == norms
    if name == "resnet":
        assert ops(data).count("Slice") == ops(data).count("Pad") == 2
        assert ops(data)[-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]
    if name == "two_inputs":
        assert [i.name for i in g.input] == ["image", "vector"]
        assert [o.name for o in g.output] == ["mean", "scale"]
    assert all(i.type.tensor_type.shape.dim[0].dim_param == "batch" for i in [*g.input, *g.output])
    out, err = capfd.readouterr()
    assert out == err == ""


def test_the_lenet_graph_is_as_short_as_it_can_be() -> None:
    data = to_bytes(LeNet(), torch.randn(1, 1, 28, 28))
    assert ops(data) == ["Conv", "MaxPool", "Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Relu", "Gemm"]
    assert len(data) - sum(len(t.raw_data) for t in graph(data).initializer) < 700


def test_the_bytes_depend_on_the_network_alone() -> None:
    net = LeNet(wide=False)
    first = to_bytes(net, torch.randn(2, 1, 28, 28))
    assert first == to_bytes(net, torch.randn(5, 1, 28, 28))
    names = [t.name for t in graph(to_bytes(Tied(), torch.randn(2, 6))).initializer]
    assert names.count("a.weight") == 1
    assert not {"b.weight", "unused"} & set(names)


def test_norms_stay_unless_folding_is_asked_for() -> None:
    net = Vgg()
    shake(net)
    x = torch.randn(2, 3, 16, 16)
    folded = to_bytes(net, x, fold_norms=True)
    assert ops(folded).count("BatchNormalization") == 0
    with torch.no_grad():
        want = net.eval()(x).numpy()
    np.testing.assert_allclose(run(folded, x)[0], want, rtol=1e-4, atol=1e-5)


def test_names_of_inputs_and_outputs_can_be_given_and_swapped() -> None:
    net = TwoInputs()
    x = {"image": torch.randn(2, 1, 6, 6), "vector": torch.randn(2, 5)}
    g = graph(to_bytes(net, x, input_names=["vector", "image"], output_names=["a", "b"]))
    assert [i.name for i in g.input] == ["vector", "image"]
    assert g.input[0].type.tensor_type.shape.dim[1].dim_value == 1
    assert [o.name for o in g.output] == ["a", "b"]
    with pytest.raises(UsageError, match="2 different names needed"):
        to_bytes(net, x, output_names=["a"])
    with pytest.raises(UsageError, match="a parameter's name"):
        to_bytes(net, x, output_names=["a", "mean.weight"])


def test_a_fixed_batch_stays_fixed() -> None:
    g = graph(to_bytes(LeNet(wide=False), torch.randn(2, 1, 28, 28), dynamic_batch=False))
    assert g.input[0].type.tensor_type.shape.dim[0].dim_value == 2


class _OneByOne(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * 2 for row in x.unbind(0)]) + x.reshape(2, -1)


def test_a_batch_written_into_the_code_is_refused_with_advice(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match="dynamic_batch=False"):
        to_bytes(_OneByOne(), torch.randn(2, 3))
    assert capfd.readouterr() == ("", "")


def test_uniform_levels_become_int8_codes() -> None:
    torch.manual_seed(0)
    net = LeNet(wide=False)
    scale = 0.03
    with torch.no_grad():
        for p in (net.conv2.weight, net.fc1.weight):
            p.copy_(torch.clamp((p / scale).round(), -7, 7) * scale + 0.0)
    rows = torch.linspace(0.01, 0.05, 10)
    with torch.no_grad():
        net.fc2.weight.copy_((net.fc2.weight / rows[:, None]).round() * rows[:, None] + 0.0)
    info = {"conv2.weight": scale, "fc1.weight": np.float32(scale), "fc2.weight": rows.numpy()}
    plain, data = (to_bytes(net, torch.randn(2, 1, 28, 28), quantised=q) for q in (None, info))
    tensors = {t.name: numpy_helper.to_array(t) for t in graph(data).initializer}
    assert tensors["conv2.weight"].dtype == np.int8
    assert abs(tensors["conv2.weight"]).max() <= 7
    assert tensors["fc2.weight_scale"].shape == (10,)
    assert ops(data).count("DequantizeLinear") == 3
    assert target.quantised(plain, info) == data
    assert target.dequantised(data) == plain
    assert target.dequantised(plain) == plain


def test_weights_of_a_matmul_stay_float_because_onnxruntime_would_round_the_activations() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.randint(-7, 8, (3, 4)) * 0.5)
    x = torch.randn(2, 5, 4)  # three axes: MatMul, and a transposed constant
    data = to_bytes(net, x, quantised={"0.weight": 0.5})  # compared with torch inside
    assert ops(data)[0] == "MatMul"
    assert data == to_bytes(net, x)


@pytest.mark.parametrize("per", ["tensor", "row"])
def test_the_engine_and_onnxruntime_agree_on_codes_and_zeros_stay(per: str) -> None:
    net = LeNet(wide=False)
    shake(net)
    scales = {}
    for name in ("conv2.weight", "fc1.weight", "fc2.weight"):
        w = net.get_parameter(name)
        matrix = AllOf((TopK(), Uniform(per=per))).project(w.detach().reshape(w.shape[0], -1), (w.numel() // 8, 4))
        scales[name] = Uniform(per=per).grid(matrix)
        with torch.no_grad():
            w.copy_(matrix.reshape(w.shape))
    x = torch.randn(3, 1, 28, 28)
    data = to_bytes(net, x, quantised=scales)
    packed = formats.pack(data)
    assert formats.pack(formats.unpack(packed)) == packed
    kept = {t.name: np.count_nonzero(numpy_helper.to_array(t)) for t in graph(formats.unpack(packed)).initializer}
    for name in scales:
        w = net.get_parameter(name)
        assert kept[name] == int(w.count_nonzero()) <= w.numel() // 8
    (want,), (got,) = run(data, x), InferenceSession(packed).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * float(np.abs(want).max()))
    # The very same weights: the engine on codes does what it does on floats, to the bit.
    plain = InferenceSession(target.dequantised(data)).run(None, {"x": x.numpy()})[0]
    np.testing.assert_array_equal(got, plain)


def test_weights_off_the_grid_are_refused() -> None:
    with pytest.raises(UsageError, match=r"off the grid of scale 0.03"):
        to_bytes(LeNet(wide=False), torch.randn(2, 1, 28, 28), quantised={"fc1.weight": 0.03})
    with pytest.raises(UsageError, match="no parameter named"):
        to_bytes(LeNet(wide=False), torch.randn(2, 1, 28, 28), quantised={"fc9.weight": 0.03})


def test_a_wrong_graph_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = target.raw_onnx

    def wrong(*args: Any) -> Any:
        model, program = right(*args)
        next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Sigmoid"
        return model, program

    monkeypatch.setattr(target, "raw_onnx", wrong)
    with pytest.raises(CheckError, match=r"output 'output' .* first differs at Sigmoid 'relu'"):
        to_bytes(LeNet(wide=False), torch.randn(2, 1, 28, 28))


def test_a_graph_against_shape_inference_is_refused_and_only_stft_left_to_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stft(x, 16, window=torch.hann_window(16), return_complex=True).abs()

    to_bytes(Spectrum(), torch.randn(2, 64))  # shape inference takes its one-sided spectrum for a whole one
    right = canonical.assemble

    def wrong(g: Any) -> Any:
        model = right(g)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
        return model

    monkeypatch.setattr(canonical, "assemble", wrong)
    with pytest.raises(CheckError, match="fails ONNX's shape inference"):
        to_bytes(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), torch.randn(2, 4))


def test_other_values_go_into_the_same_graph() -> None:
    net = LeNet(wide=False)
    x = torch.randn(2, 1, 28, 28)
    data = to_bytes(net, x)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.5)
    assert target.with_weights(data, dict(net.named_parameters())) == to_bytes(net, x)
    with pytest.raises(UsageError, match="no initializer named 'fc9'"):
        target.with_weights(data, {"fc9": x})
    with pytest.raises(UsageError, match=r"fc1.bias is float32"):
        target.with_weights(data, {"fc1.bias": x})


class _Chunks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(3, 5, bias=False), nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = self.a(x).chunk(2, -1)
        y = self.c(self.b((left * torch.tanh(right))[:, None]))
        return y.unflatten(2, (1, 5)), x


def test_splits_extra_axes_and_an_input_handed_on() -> None:
    data = to_bytes(_Chunks(), torch.randn(2, 4))
    assert "Split" in ops(data)
    assert not {"SplitToSequence", "SequenceAt", "Shape"} & set(ops(data))
    assert "b.weight.T" in {t.name for t in graph(data).initializer}


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.where = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 5, 16))
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x) + self.where).mean(1))


def test_a_transformer_layer_exports() -> None:
    assert "Softmax" in ops(to_bytes(_Attention(), torch.randint(0, 20, (2, 5))))


def test_the_table_of_forms_is_made_once_and_no_export_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recurrent net adds translations of its own; the net after it gets torch's table as it was."""
    from torch.onnx._internal.exporter import _registration

    from secateur.export import _registry

    plain = _registration.ONNXRegistry.__dict__["from_torchlib"]
    made: list[Any] = []

    def counted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return plain.__func__(cls, *args, **kwargs)

    lenet, gru = LeNet(wide=False), nn.GRU(4, 3, batch_first=True)
    with monkeypatch.context() as patch:
        patch.setattr(_registry, "_known", {})
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", classmethod(counted))
        first = to_bytes(lenet, torch.randn(2, 1, 28, 28))
        sizes = {k: len(v) for t in _registry._known.values() for k, v in t.functions.items()}
        to_bytes(gru, torch.randn(2, 5, 4))
        assert to_bytes(lenet, torch.randn(2, 1, 28, 28)) == first
        assert len(made) == 1
        assert {k: len(v) for t in _registry._known.values() for k, v in t.functions.items()} == sizes
    assert _registration.ONNXRegistry.__dict__["from_torchlib"] is plain
    with monkeypatch.context() as patch:
        patch.delattr(_registration, "ONNXRegistry")
        with _registry.made_once():
            pass


def test_the_operators_are_looked_up_once_for_each_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for ever: an operator that is registered between two exports is found by the second."""
    from torch._export import utils

    from secateur.export import _registry

    plain, looked_up = utils._materialize_cpp_cia_ops, []
    net, x = torch.nn.Linear(2, 2), torch.randn(2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(utils, "_materialize_cpp_cia_ops", lambda: looked_up.append(plain()))
        first = to_bytes(net, x)
        assert len(looked_up) == 1
        assert to_bytes(net, x) == first
        assert len(looked_up) == 2
        patch.setattr(_registry, "_operators", contextlib.nullcontext)
        assert to_bytes(net, x) == first
        assert len(looked_up) > 2 + 20
    assert utils._materialize_cpp_cia_ops is plain
    with monkeypatch.context() as patch:
        patch.delattr(utils, "_materialize_cpp_cia_ops")
        with _registry.made_once():
            pass
