"""Small networks of every kind the graph room must understand. Written out, so that the tests need no other room."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class LeNet(nn.Module):
    """The Caffe variant, functional glue."""

    def __init__(self, wide: bool = True) -> None:
        super().__init__()
        a, b, c = (20, 50, 500) if wide else (4, 5, 9)
        self.conv1, self.conv2 = nn.Conv2d(1, a, 5), nn.Conv2d(a, b, 5)
        self.fc1, self.fc2 = nn.Linear(b * 16, c), nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class HardView(LeNet):
    """The same with the size of the flattened tensor written into the code."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.view(-1, self.fc2.in_features and 80))))


class Mlp(nn.Module):
    """Regression."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8, bias=False), nn.GELU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Vgg(nn.Module):
    """Padded convolutions with batch-norm."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n = 3
        for width in (6, 8, 8):
            layers += [nn.Conv2d(n, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)]
            n = width
        self.features, self.head = nn.Sequential(*layers), nn.Linear(n, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """CIFAR basic block, shortcut option A, in-place add."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.extra = stride, (n_out - n_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        y += x
        return F.relu(y)


class ResNet(nn.Module):
    """He et al. 2015, section 4.2, with 6 * n + 2 layers."""

    def __init__(self, n: int = 1, width: int = 4) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        blocks, now = [], width
        for stage in range(3):
            for i in range(n):
                out = width * 2**stage
                blocks.append(Block(now, out, 2 if stage and not i else 1))
                now = out
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(now, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


class Concat(nn.Module):
    """Two branches, joined, split and shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 5, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 4, 1), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((torch.tanh(self.a(x)), F.relu(self.b(x))), 1)
        return self.d(torch.tanh(self.c(y)).permute(0, 2, 3, 1).reshape(x.shape[0], -1))


class Depthwise(nn.Module):
    """MobileNet-like: pointwise, depthwise, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.n1 = nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.dw, self.n2 = nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)
        self.down, self.head = nn.Conv2d(6, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.n1(self.up(x)))
        x = F.relu6(self.n2(self.dw(x)))
        return self.head(F.adaptive_avg_pool2d(F.silu(self.down(x)), 1).flatten(1))


class TwoInputs(nn.Module):
    """An image and a vector; two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 7))
        self.vector = nn.Linear(5, 7)
        self.mean, self.scale = nn.Linear(7, 2), nn.Linear(7, 2)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        z = torch.tanh(self.image(image) + self.vector(vector))
        return {"mean": self.mean(z), "scale": F.softplus(self.scale(z))}


class Conv1d(nn.Module):
    """A signal net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 4, 5, stride=2), nn.BatchNorm1d(4), nn.ELU(), nn.AvgPool1d(2), nn.Conv1d(4, 6, 3),
            nn.Sigmoid(), nn.Flatten(), nn.Linear(6 * 5, 3), nn.Softmax(-1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Tied(nn.Module):
    """One weight used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.b.weight = self.a.weight
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Gate(nn.Module):
    """Squeeze and excitation, a gated linear unit by chunk, `same` padding, reversed subtraction, division."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3, padding="same")
        self.s1, self.s2 = nn.Linear(6, 3), nn.Linear(3, 6)
        self.b, self.head = nn.Conv2d(6, 4, 2, padding="valid"), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = x * torch.sigmoid(self.s2(F.relu(self.s1(x.mean((2, 3))))))[:, :, None, None]
        left, right = self.b(x).chunk(2, 1)
        y = torch.maximum(left, right) / (1 + torch.tanh(right) ** 2)
        return self.head(torch.cat((1 - y, left - y), 1).mean((2, 3))) * 0.5 + 0.0 * 1


class Odd(nn.Module):
    """Operations that no file describes, learned scales, grouped and transposed convolutions, circular padding."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), nn.GroupNorm(2, 8)
        self.grouped, self.up = nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.act, self.scale, self.head = nn.PReLU(4), nn.Parameter(torch.rand(4) + 0.5), nn.Linear(4, 6)
        self.tail, self.last = nn.Linear(6, 5), nn.Linear(5, 2)
        self.register_buffer("mask", torch.tensor([0.0, -float("inf"), 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.up(self.grouped(F.relu(self.norm(self.a(x))))))
        x = self.tail(torch.tanh(self.head(x.amax((2, 3)) * self.scale)))
        return self.last(torch.softmax(x.cumsum(1) + self.mask, -1))


class Attention(nn.Module):
    """Embedding, learned positions, one encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.where = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 5, 16))
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x) + self.where).mean(1))


class Unbatched(nn.Module):
    """One picture at a time, without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 3), nn.Linear(27, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(self.a(x).flatten())))[None]


def more_nets() -> dict[str, tuple[nn.Module, object]]:
    """Nets with parts that the room only has to leave alone."""
    return {
        "gate": (Gate(), torch.randn(2, 2, 6, 6)),
        "odd": (Odd(), torch.randn(2, 3, 8, 8)),
        "attention": (Attention(), torch.randint(0, 20, (2, 5))),
        "unbatched": (Unbatched(), torch.randn(2, 5, 5)),
    }


def all_nets() -> dict[str, tuple[nn.Module, object]]:
    """Name -> (net with shaken batch-norm statistics, example inputs of batch 2)."""
    nets = {
        "lenet": (LeNet(wide=False), torch.randn(2, 1, 28, 28)),
        "hard_view": (HardView(wide=False), torch.randn(2, 1, 28, 28)),
        "mlp": (Mlp(), torch.randn(2, 6)),
        "vgg": (Vgg(), torch.randn(2, 3, 16, 16)),
        "resnet": (ResNet(), torch.randn(2, 3, 8, 8)),
        "pad_layers": (PadLayers(), torch.randn(2, 3, 8, 8)),
        "concat": (Concat(), torch.randn(2, 2, 6, 6)),
        "depthwise": (Depthwise(), torch.randn(2, 2, 7, 7)),
        "two_inputs": (TwoInputs(), {"image": torch.randn(2, 1, 6, 6), "vector": torch.randn(2, 5)}),
        "conv1d": (Conv1d(), torch.randn(2, 1, 32)),
        "tied": (Tied(), torch.randn(2, 6)),
    }
    for net, _ in nets.values():
        shake(net)
    return nets


def shake(net: nn.Module) -> None:
    """Batch-norm statistics and affines away from 0 and 1."""
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(m.running_mean, std=0.5)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
            nn.init.normal_(m.weight, 1.0, 0.3)
            nn.init.normal_(m.bias, 0.0, 0.5)


class PadLayers(ResNet):
    """Option A shortcuts with a padding layer, whose sizes can be changed."""

    def __init__(self, n: int = 1, width: int = 4) -> None:
        super().__init__(n, width)
        self.blocks = nn.Sequential(*[_PadBlock(b) if b.stride > 1 else b for b in self.blocks])


class _PadBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, block.extra, block.extra), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.pad(x[:, :, ::2, ::2]))
