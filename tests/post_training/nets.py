"""Small networks as torch's exporters write them."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional


def normed(cin: int, cout: int) -> nn.Sequential:
    """A convolution and its batch norm."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout))


class Residual(nn.Module):
    """Batch norms, a residual sum, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = normed(3, 8), nn.Linear(8, 5)
        self.branch = nn.Sequential(normed(8, 8), nn.ReLU(), normed(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y: Tensor = self.fc(torch.relu(x + self.branch(x)).mean((2, 3)))
        return y


class Joined(nn.Module):
    """Two branches joined, a max pool, SiLU and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.c, self.d, self.fc = nn.Conv2d(16, 12, 3, stride=2), nn.Conv2d(12, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1), 2)
        x = functional.gelu(self.d(functional.silu(self.c(x))))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class Depthwise(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down, a grouped convolution, ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.deep = nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.down, self.grouped, self.fc = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn1(self.up(x)))
        x = self.down(functional.relu6(self.bn2(self.deep(x))))
        y: Tensor = self.fc(torch.relu(self.grouped(x)).mean((2, 3)))
        return y


class OverTime(nn.Module):
    """Convolutions over time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool1d(torch.relu(self.n(self.a(x))), 2)
        y: Tensor = self.fc(torch.relu(self.b(x)).mean(2))
        return y


class Rows(nn.Module):
    """Linear layers on rows of features, [n, rows, features], and one behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 24), nn.Linear(24, 8), nn.Linear(8, 6, bias=False)
        self.n, self.fc = nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.a(x))).mean(1)
        y: Tensor = self.fc(torch.relu(self.n(self.c(x))))
        return y


def ready(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Statistics and scales of batch norms that are not those of a fresh one; evaluation mode."""
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(16, *shape))
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.uniform_(m.bias, -0.3, 0.3)
    return net.eval()


def exported(net: nn.Module, shape: tuple[int, ...], opset: int | None = None, n: int | None = None) -> bytes:
    """By torch's exporter; with `opset` by its old one, which writes names and shapes otherwise; `n`: fixed."""
    x = torch.randn(n or 2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset is None:
            free = None if n else ({0: torch.export.Dim("batch")},)
            made = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=free, verbose=False)
            assert made is not None
            data: bytes = made.model_proto.SerializeToString()
            return data
        file, axes = io.BytesIO(), None if n else {"x": {0: "n"}}
        torch.onnx.export(net, (x,), file, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes)
        return file.getvalue()


def examples(shape: tuple[int, ...], n: int = 48) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Normal noise, float32 [n, *shape]."""
    return np.random.default_rng(0).standard_normal((n, *shape)).astype(np.float32)


def dense(layers: list[tuple[str, Any]], opset: int = 17, more: Sequence[Any] = ()) -> bytes:
    """x -> layer -> layer ..., [n, features]."""
    nodes, constants, value = [], [], "x"
    for i, (op, w) in enumerate(layers):
        constants.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node(op, [value, f"w{i}"], [f"v{i}"]))
        value = f"v{i}"
    nodes += more
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", layers[0][1].shape[0]])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        constants,
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    ).SerializeToString()
    return made
