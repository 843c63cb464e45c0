"""Files in the words of many exporters: all in the engine, ONNX Runtime's numbers, at every opset and batch."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from secateur.engine import InferenceSession
from secateur.formats import pack

from .engine_graphs import tolerance
from .make_exporters import FOLDER, MODELS, OLD, OPSETS, files
from .test_engine_random import run_ort


def feeds_of(model: bytes, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    graph = onnx.load_from_string(model).graph
    constants = {t.name for t in graph.initializer}
    return {
        i.name: rng.standard_normal([d.dim_value or batch for d in i.type.tensor_type.shape.dim]).astype(np.float32)
        for i in graph.input
        if i.name not in constants
    }


def agree(model: bytes, batch: int, oracle: bytes | None = None) -> InferenceSession:
    """`oracle`: the same in words that ONNX Runtime knows."""
    session = InferenceSession(model, threads=1, fallback=None)
    feeds = feeds_of(model, batch)
    want = run_ort(oracle or model, feeds)
    allowed = tolerance(run_ort, oracle or model, feeds, want)
    for a, b, most in zip(session.run(None, feeds), want, allowed, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.max(np.abs(a - b)) <= most
    return session


def test_the_files_are_what_the_script_writes() -> None:
    written = files()
    assert {p.stem for p in FOLDER.glob("*.onnx")} == set(written)
    for name, data in written.items():
        assert data == (FOLDER / f"{name}.onnx").read_bytes(), name
        assert len(data) < 16_000


@pytest.mark.parametrize("name", sorted({**MODELS, **OLD}))
def test_files_agree_with_onnxruntime(name: str) -> None:
    data = (FOLDER / f"{name}.onnx").read_bytes()
    for batch in (1, 3):
        agree(data, batch, OLD[name][0](7) if name in OLD and OLD[name][1][0] < 7 else None)
        packed = InferenceSession(pack(data), threads=1, fallback=None)
        feeds = feeds_of(data, batch)
        plain = InferenceSession(data, threads=1, fallback=None).run(None, feeds)
        assert all(np.array_equal(a, b) for a, b in zip(packed.run(None, feeds), plain, strict=True))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_opset_agrees_with_onnxruntime(name: str, opset: int) -> None:
    agree(MODELS[name](opset), 2)


@pytest.mark.parametrize(("name", "opset"), [(name, opset) for name in OLD for opset in OLD[name][1]])
def test_old_words_agree_with_onnxruntime(name: str, opset: int) -> None:
    build = OLD[name][0]
    agree(build(opset), 2, build(7) if opset < 7 else None)


def test_what_exporters_spell_out_is_put_together() -> None:
    session = agree(MODELS["keras_mobile"](13), 1)
    kernels = [row["kernel"] for row in session.explain(repeats=0)]
    # Padding, norms and Relu6 are gone into the three convolutions.
    assert sum(k.startswith("conv_") for k in kernels) == 3
    assert not any("norm" in k or "pad" in k or "clip" in k for k in kernels)
    assert "merged 1 Pad nodes into convolutions" in session.notes


def test_what_old_exporters_spell_out_is_put_together() -> None:
    """Norms, biases, residuals and bounds are gone into the layers, however they were said."""
    layers = {"coreml_tiny": (2, 0), "keras2onnx_conv": (1, 1), "mxnet_face": (2, 1), "torch_upsample": (3, 1)}
    for name, (n_convs, n_linear) in layers.items():
        build, opsets = OLD[name]
        for opset in opsets:
            rows = agree(build(opset), 1, build(max(opset, 7))).explain(repeats=0)
            kernels = [row["kernel"].split("_")[0] for row in rows]
            assert (kernels.count("conv"), kernels.count("linear")) == (n_convs, n_linear)
            rest = [r["node"] for r in rows if r["op"] in ("BatchNormalization", "Add", "Clip", "LeakyRelu", "Relu")]
            assert rest == (["scalerPreprocessor"] if name == "coreml_tiny" else []), (opset, rest)


def torch_net():  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
            self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
            self.point = nn.Conv2d(8, 16, 1)
            self.norm = nn.LayerNorm(16)
            self.up = nn.Linear(16, 32)
            self.down = nn.Linear(32, 16)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.head = nn.Linear(16, 5)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.point(self.depthwise(self.stem(x)))
            x = nn.functional.adaptive_avg_pool2d(x + torch.sigmoid(x) * x, (4, 4))
            x = x.flatten(2).transpose(1, 2)
            x = self.norm(x)
            x = x + self.attention(x, x, x, need_weights=False)[0]
            x = x + self.down(nn.functional.gelu(self.up(x)))
            return torch.softmax(self.head(x.mean(1)), -1)

    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return torch, net


@pytest.mark.parametrize(
    ("dynamo", "opset"), [(False, 14), (False, 17), (False, 20), (True, 18), (True, 21), (True, 23)]
)
def test_both_exporters_of_torch(dynamo: bool, opset: int, tmp_path: Path) -> None:
    torch, net = torch_net()
    x = torch.randn(2, 3, 16, 16)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = {"x": {0: torch.export.Dim("batch")}}
            program = torch.onnx.export(
                net, (x,), dynamo=True, opset_version=opset, dynamic_shapes=batch, verbose=False
            )
            program.save(path, external_data=False)
        else:
            torch.onnx.export(
                net, (x,), path, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes={"x": {0: "batch"}}
            )
    model = path.read_bytes()
    session = agree(model, 1)
    for batch_size in (1, 2):
        agree(model, batch_size)
    with torch.no_grad():
        exact = net.double()(x.double()).numpy()
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.max(np.abs(got - exact)) < 1e-5  # probabilities; some 40 layers of float32
    kernels = [row["kernel"] for row in session.explain(repeats=0)]
    assert sum(k.startswith("conv_") for k in kernels) == 3
