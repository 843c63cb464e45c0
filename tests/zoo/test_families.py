"""The nets of the families: what is theirs alone, by hand."""

from __future__ import annotations

import torch

from secateur.zoo.families import GAT, Attend, CoordinateMLP, FeatureInteraction, TemporalShift, shifted


def test_shifted_takes_a_quarter_from_each_neighbour() -> None:
    x = torch.arange(1.0, 13.0).view(3, 4, 1, 1)  # one clip of three frames, four channels
    y = shifted(x, 3).view(3, 4)
    assert y[:, 0].tolist() == [5, 9, 0]  # the next frame's
    assert y[:, 1].tolist() == [0, 2, 6]  # the one before
    assert torch.equal(y[:, 2:], x.view(3, 4)[:, 2:])


def test_clips_do_not_meet() -> None:
    net = TemporalShift(frames=3).eval()
    x = torch.randn(2, 3, 1, 28, 28)
    with torch.no_grad():
        together = net(x)
        assert torch.allclose(together[1:], net(x[1:]), atol=1e-5)
        assert not torch.allclose(together, net(x.flip(1)), atol=1e-3)  # the order of frames counts


def test_interactions_are_all_products_of_pairs() -> None:
    net = FeatureInteraction(buckets=16, dim=3).eval()
    net.deep = torch.nn.Identity()  # type: ignore[assignment]
    net.weight = torch.nn.Embedding.from_pretrained(torch.zeros(16, 3))  # type: ignore[assignment]
    features = torch.tensor([[3, 7, 5, 0]])
    a, b, c = net.embed.weight[[3, 7, 5]]
    assert torch.allclose(net(features)[0], a * b + a * c + b * c, atol=1e-6)


def test_attention_sees_neighbours_only() -> None:
    layer = Attend(5, 2, 3)
    x = torch.randn(4, 5)
    apart = ~torch.eye(4, dtype=torch.bool)
    apart[0, 1] = False
    y = layer(x, apart)
    assert torch.allclose(y[1:], layer.project(x)[1:] + layer.bias, atol=1e-6)  # alone: itself
    h = layer.project(x).view(4, 2, 3)
    for head in range(2):
        own = h[0, head] @ layer.here[head]
        scores = torch.stack([own + h[j, head] @ layer.there[head] for j in (0, 1)]).flatten()
        shares = torch.nn.functional.leaky_relu(scores, 0.2).softmax(0)
        assert torch.allclose(y[0].view(2, 3)[head], shares @ h[:2, head] + layer.bias.view(2, 3)[head], atol=1e-5)
    assert GAT(5, 2, 3, 7)(x, (~apart).float()).shape == (4, 7)


def test_places_have_their_own_waves() -> None:
    net = CoordinateMLP(hidden=8, octaves=4)
    seen: list[torch.Tensor] = []
    net.layers[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    net(torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.25, -0.5]]))
    (waves,) = seen
    assert waves.shape == (3, 16)
    assert torch.allclose(waves[0], torch.tensor([0.0] * 8 + [1.0] * 8))
    assert torch.allclose(waves[1, :2], torch.tensor([1.0, 2**-0.5]), atol=1e-6)  # sin(pi/2), sin(pi/4)
