"""Files of ordinary networks: ours are as short as those of torch, and the engine runs all of them itself."""

from __future__ import annotations

import functools
import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from secateur.engine import InferenceSession
from secateur.errors import HandedOverWarning
from secateur.export._registry import made_once
from secateur.export.onnx import to_bytes
from secateur.graph.capture import quiet_torch
from secateur.shell import runtimes
from secateur.testing.ordinary import NETS

GRAPHS = {"gcn"}  # no batch axis
RECURRENT = {"gru": "GRU", "lstm": "LSTM"}  # ONNX Runtime runs these layers
ATTENDING = {"vit": 2, "bert": 2, "gpt": 2}
# Nodes that depend on an input, and those of them that are about shapes: what the passes come down to. A pass that is
# missed leaves more; a newer exporter may need fewer.
LENGTHS = {
    "mobilenet": (23, 0),
    "vit": (97, 16),  # the class token, as often as there are images
    "bert": (109, 16),  # the mask of the padding, for every head
    "gpt": (74, 1),
    "unet": (27, 2),
    "conv1d": (11, 2),
    "gru": (7, 2),
    "lstm": (8, 2),
    "spiking": (65, 0),
    "gcn": (5, 0),
}
SHAPES = {
    "CastLike",
    "Concat",
    "ConstantOfShape",
    "Expand",
    "Gather",
    "Range",
    "Shape",
    "Slice",
    "Squeeze",
    "Unsqueeze",
}


@functools.cache
def ours(name: str) -> bytes:
    net, inputs = NETS[name](0)
    return to_bytes(net, inputs, dynamic_batch=name not in GRAPHS)


@functools.cache
def theirs(name: str, dynamo: bool) -> bytes:
    """What `torch.onnx.export` writes, its optimiser included."""
    net, inputs = NETS[name](0)
    given = [f"x{i}" for i in range(len(inputs))]
    file = io.BytesIO()
    with quiet_torch(), made_once(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter warns of itself and of what it traces
        if not dynamo:
            axes = {} if name in GRAPHS else {n: {0: "batch"} for n in given}
            torch.onnx.export(net, inputs, file, dynamo=False, input_names=given, dynamic_axes=axes, opset_version=18)
            return file.getvalue()
        free = None if name in GRAPHS else tuple({0: torch.export.Dim("batch")} for _ in inputs)
        program = torch.onnx.export(net, inputs, dynamo=True, dynamic_shapes=free, opset_version=18, verbose=False)
    return bytes(program.model_proto.SerializeToString())  # type: ignore[union-attr]


def running(data: bytes) -> list[str]:
    """Kinds of the nodes that depend on an input: the others are constants to every engine. A Flatten moves nothing,
    and norms behind a convolution are part of it; ours leave them, for folding would move weights off their levels."""
    graph = onnx.load_model_from_string(data).graph
    live = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    kinds = []
    for n in graph.node:
        if live & set(n.input):
            live |= set(n.output)
            kinds.append(n.op_type)
    return [k for k in kinds if k not in ("BatchNormalization", "Flatten", "Identity")]


def session(data: bytes) -> InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        return InferenceSession(data, threads=1)


def answer(made: InferenceSession, name: str) -> np.ndarray[Any, Any]:
    inputs = NETS[name](0)[1]
    return made.run(None, {i.name: x.numpy() for i, x in zip(made.get_inputs(), inputs, strict=True)})[0]


@pytest.mark.parametrize("name", NETS)
def test_our_file_is_no_longer_than_torchs_own_and_computes_no_more_shapes(name: str) -> None:
    mine, other = running(ours(name)), running(theirs(name, dynamo=True))
    shapes = sum(k in SHAPES for k in mine)
    assert len(mine) <= min(len(other), LENGTHS[name][0]), (sorted(mine), sorted(other))
    assert shapes <= min(sum(k in SHAPES for k in other), LENGTHS[name][1]), sorted(mine)
    assert not {"CastLike", "Range", "ConstantOfShape"} & set(mine)
    assert mine.count("Shape") == (name in ("vit", "bert"))
    assert mine.count("Expand") == {"vit": 1, "bert": 2}.get(name, 0)


@pytest.mark.parametrize("name", NETS)
def test_the_engine_runs_our_file_alone(name: str) -> None:
    net, inputs = NETS[name](0)
    made = session(ours(name))
    with torch.no_grad():
        want = net(*inputs).numpy()
    np.testing.assert_allclose(answer(made, name), want, rtol=1e-4, atol=1e-5)
    handed = made.coverage["handed_over"]
    if name in RECURRENT:  # the layer, and what feeds it
        assert sorted(h["op"] for h in handed) == sorted(["Gather", "Transpose", RECURRENT[name]])
    else:
        assert handed == []
    found = sum(step["op"] == "Attention" for step in made.explain(repeats=0))
    assert found == ATTENDING.get(name, 0)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", [n for n in NETS if n not in RECURRENT])
def test_the_engine_runs_files_of_torchs_exporters_alone(name: str, dynamo: bool) -> None:
    made = session(theirs(name, dynamo))
    np.testing.assert_allclose(answer(made, name), answer(session(ours(name)), name), rtol=1e-4, atol=1e-5)
    assert made.coverage["handed_over"] == []


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_is_in_the_file_as_it_is(name: str) -> None:
    """So that what was asked of a weight can be checked in the file: under its name, or transposed under `name.T`."""
    net, _ = NETS[name](0)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(ours(name)).graph.initializer}
    for key, p in net.named_parameters():
        value = p.detach().numpy()
        assert np.array_equal(tensors[key] if key in tensors else tensors[f"{key}.T"].T, value), key
        assert not {key, f"{key}.T"} <= tensors.keys(), f"{key} is stored twice"


class _Cells(nn.Module):
    def __init__(self, cell: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.cells = cell(5, 6, **options)

    def forward(self, x: torch.Tensor) -> Any:
        y, last = self.cells(x)
        return (y, *last) if isinstance(last, tuple) else (y, last)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": True, "num_layers": 2, "bidirectional": True},
        {"batch_first": True, "bias": False, "bidirectional": True},
        {"batch_first": True, "num_layers": 3},
    ],
    ids=["plain", "two_ways", "no_bias", "deep"],
)
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_of_all_forms_compute_what_torch_does(cell: type[nn.Module], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = _Cells(cell, **options).eval()
    graph = onnx.load_model_from_string(to_bytes(net, torch.randn(2, 7, 5))).graph  # compares states, too
    kinds = [n.op_type for n in graph.node]
    assert kinds.count(cell.__name__) == options.get("num_layers", 1)
    assert not {"Shape", "Expand", "Slice"} & set(kinds)
    assert {t.name for t in graph.initializer} >= {n for n, _ in net.named_parameters()}


class _GivenState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(5, 6, num_layers=2)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.cells(x, state)[0]
        return y


def test_a_state_that_is_given_stays() -> None:
    data = to_bytes(_GivenState().eval(), (torch.randn(7, 2, 5), torch.randn(2, 2, 6)), dynamic_batch=False)
    layers = [n for n in onnx.load_model_from_string(data).graph.node if n.op_type == "GRU"]
    assert [bool(n.input[5]) for n in layers] == [True, True]


class _Attends(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        options = dict(self.options)
        if options.pop("allowed", False):
            options["attn_mask"] = k.mean(-1)[..., None, :] < 0.9
        if options.pop("added", False):
            options["attn_mask"] = k.mean(-1)[..., None, :]
        return nn.functional.scaled_dot_product_attention(q, k, v, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"scale": 0.3}, {"allowed": True}, {"added": True}, {"enable_gqa": True}],
    ids=["plain", "causal", "scale", "mask", "bias", "grouped"],
)
def test_attention_of_all_forms_is_known_again(options: dict[str, Any]) -> None:
    groups = 2 if options.get("enable_gqa") else 4
    inputs = torch.randn(2, 4, 5, 8), torch.randn(2, groups, 7, 8), torch.randn(2, groups, 7, 3)
    made = session(to_bytes(_Attends(**options), inputs))
    assert [s["op"] for s in made.explain(repeats=0)].count("Attention") == 1
    assert made.coverage["handed_over"] == []
    got = made.run(None, {i.name: x.numpy() for i, x in zip(made.get_inputs(), inputs, strict=True)})[0]
    np.testing.assert_allclose(got, _Attends(**options)(*inputs).numpy(), rtol=1e-4, atol=1e-5)


class _Masked(nn.Module):
    """Attention under a mask [batch, 1 or heads, 1 or rows, keys] of booleans, or of 0 and -inf."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.added = added

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        mask = seen > 0
        if self.added:
            mask = torch.where(mask, 0.0, -torch.inf)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("added", [False, True], ids=["booleans", "numbers"])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_row_that_may_see_no_key_is_zero_everywhere(rows: int, added: bool) -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 4, 5, 8) for _ in range(3))
    seen = torch.rand(2, 1, rows, 5) - 0.2
    seen[0, 0, -1] = -1.0
    net = _Masked(added)
    data = to_bytes(net, (q, k, v, seen))
    wanted = net(q, k, v, seen).numpy()
    assert not wanted[0, -1].any()
    assert wanted[1].any(-1).all()
    made = session(data)
    feeds = {i.name: x.numpy() for i, x in zip(made.get_inputs(), (q, k, v, seen), strict=True)}
    onnxruntime = runtimes.onnxruntime()
    for got in (made.run(None, feeds)[0], onnxruntime.InferenceSession(data).run(None, feeds)[0]):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert not got[0, -1].any()
    assert [s["op"] for s in made.explain(repeats=0)][-1:] == ["Attention"]


def test_a_mask_that_is_known_to_show_every_row_a_key_needs_no_guard() -> None:
    class Known(nn.Module):
        def __init__(self, mask: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.mask[:3, :3])

    x = torch.randn(2, 3, 4)
    causal = torch.full((4, 4), -torch.inf).triu(1)
    hidden = causal.index_fill(0, torch.tensor([1]), -torch.inf)
    for mask, guarded in ((causal, False), (hidden, True), (causal == 0, False), (hidden == 0, True)):
        data = to_bytes(Known(mask), x)
        kinds = [n.op_type for n in onnx.load_model_from_string(data).graph.node]
        assert kinds == ["Mul", "Transpose", "MatMul", "Add", "Softmax", "MatMul", *(["Mul"] if guarded else [])]
        got = session(data).run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(got, Known(mask)(x).numpy(), rtol=1e-4, atol=1e-5)


def test_a_mask_that_the_code_writes_into_is_not_run_ahead() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.zeros(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.mask.add_(-torch.inf)
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)

    net, x = Counts(), torch.randn(2, 3, 4)
    data = to_bytes(net, x)
    assert not net.mask.any()
    np.testing.assert_array_equal(session(data).run(None, {"x": x.numpy()})[0], np.zeros((2, 3, 4), np.float32))


def test_attention_of_three_axes_is_exported() -> None:
    inputs = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    made = session(to_bytes(_Attends(), inputs))
    assert [s["op"] for s in made.explain(repeats=0)].count("Attention") == 1


class _WeightsApart(nn.Module):
    """A weight that the code cuts and turns before it is used, and one whose norm is set."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(8, 5))
        self.direction = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.both.chunk(2)
        y = torch.cat([x @ first.T, torch.relu(x @ second.T)[:, :2]], 1)
        return y @ nn.functional.normalize(self.direction, dim=1).T


def test_weights_are_not_folded_into_others() -> None:
    net = _WeightsApart()
    data = to_bytes(net, torch.randn(3, 5))
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(data).graph.initializer}
    for name, p in net.named_parameters():
        assert np.array_equal(tensors[name], p.detach().numpy())


class _Table(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        return x + torch.full((n, n), 2.0).triu(1) + torch.arange(n, dtype=x.dtype)


def test_constants_that_would_make_the_file_grow_stay_calls() -> None:
    data = to_bytes(_Table(), torch.randn(2, 400, 400))
    assert len(data) < 1000
    kinds = running(data)
    assert kinds == ["Add", "Add"]
